/* SPDX-License-Identifier: BSD-3-Clause */
/* check.h: an assertion that is on in every build and says what it saw. */
#ifndef KEA_TEST_CHECK_H
#define KEA_TEST_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(what)                                                            \
	do {                                                                   \
		if (!(what)) {                                                 \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__,       \
				__LINE__, #what);                              \
			exit(1);                                               \
		}                                                              \
	} while (0)

#endif /* KEA_TEST_CHECK_H */

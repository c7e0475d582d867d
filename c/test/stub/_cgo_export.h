/* SPDX-License-Identifier: BSD-3-Clause */
/* What cgo makes of c/export.go, for C programs that are linked without Go:
 * they supply these functions themselves. */
#ifndef KEA_TEST_CGO_EXPORT_H
#define KEA_TEST_CGO_EXPORT_H

#include "../../kea.h"

char *keaGoLoad(struct kea_arg *args, int n);
int keaGoRegister(void *ctx);
char *keaGoStart(void);
void keaGoStop(void);
void keaGoBusTick(void);

#endif /* KEA_TEST_CGO_EXPORT_H */

/* SPDX-License-Identifier: BSD-3-Clause */
/* hashslot_test.c: slots as CLUSTER KEYSLOT has them, and a tag for each. */
#include "../hashslot.h"
#include "check.h"

#include <stdio.h>
#include <string.h>

static unsigned slot(const char *key)
{
	return kea_slot_of(key, strlen(key));
}

static void tags(void)
{
	static bool marked[KEA_SLOTS];
	char tag[8];

	CHECK(kea_slots_tag(marked) == -1);
	for (unsigned i = 0; i < KEA_SLOTS; i++) {
		int n;

		marked[i] = true;
		n = kea_slots_tag(marked);
		CHECK(n >= 0 && n < 1000000);
		snprintf(tag, sizeof(tag), "%06d", n);
		CHECK(slot(tag) == i);
		marked[i] = false;
	}
}

int main(void)
{
	CHECK(slot("123456789") == 0x31c3);
	CHECK(slot("") == 0);
	CHECK(slot("foo") == 12182);
	CHECK(slot("a{foo}b{bar}") == 12182);
	CHECK(slot("{}foo") == kea_slot_of("{}foo", 5) && slot("{}foo") != 12182);
	CHECK(slot("{foo") != 12182 && slot("\xff\xfe") < KEA_SLOTS);
	CHECK(slot("k{3}1") == 1584);
	tags();
	return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* hashslot.c: see hashslot.h. */
#include "hashslot.h"

#include <stdint.h>
#include <string.h>

/* CRC-16/XMODEM, four bits at a time. */
static unsigned crc(unsigned crc, const char *bytes, size_t len)
{
	static const uint16_t by_nibble[16] = {
		0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7,
		0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef,
	};

	for (size_t i = 0; i < len; i++) {
		unsigned c = (uint8_t)bytes[i];

		crc = crc << 4 ^ by_nibble[(crc >> 12 ^ c >> 4) & 15];
		crc = crc << 4 ^ by_nibble[(crc >> 12 ^ c) & 15];
	}
	return crc & 0xffff;
}

unsigned kea_slot_of(const char *key, size_t len)
{
	const char *open = memchr(key, '{', len), *close;

	if (open) {
		size_t rest = len - (size_t)(open + 1 - key);

		close = memchr(open + 1, '}', rest);
		if (close && close > open + 1) {
			key = open + 1;
			len = (size_t)(close - key);
		}
	}
	return crc(0, key, len) % KEA_SLOTS;
}

int kea_slots_tag(const bool marked[KEA_SLOTS])
{
	unsigned last[1000];
	char digits[3];

	for (unsigned i = 0; i < 1000; i++) {
		digits[0] = (char)('0' + i / 100);
		digits[1] = (char)('0' + i / 10 % 10);
		digits[2] = (char)('0' + i % 10);
		last[i] = crc(0, digits, 3);
	}
	/* A CRC is linear: that of six digits is that of the first three and
	 * three zero bytes, and that of the last three, added up. So a million
	 * tags, 60 a slot, cost a millisecond at the most. */
	for (unsigned i = 0; i < 1000; i++) {
		unsigned first = crc(last[i], "\0\0\0", 3);

		for (unsigned k = 0; k < 1000; k++)
			if (marked[(first ^ last[k]) % KEA_SLOTS])
				return (int)(i * 1000 + k);
	}
	return -1;
}

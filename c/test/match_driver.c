/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * match_driver.c: lets another program use c/match.c over its pipes, for the
 * differential and fuzz tests in keymask/, and for the benchmark.
 *
 *	cc -std=c11 -g -O1 -fsanitize=address,undefined \
 *		-o match_driver c/test/match_driver.c c/match.c
 *
 * One request after another on stdin, until end of file, numbers as
 * little-endian uint32:
 *
 *	program length, number of keys, repeats, program
 *	for each key: length, bytes
 *
 * The answer on stdout is one byte, 'r' if kea_program_check() refuses the
 * program, followed by the reason's length and text; or 'm', followed by one
 * byte for each key, '1' if it matches, else '0'. Each key is matched that
 * many times, at least once.
 *
 * Programs and keys live in memory of exactly their size, so that the address
 * sanitizer sees a read past the end. An empty key is NULL.
 */
#include "../match.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool read_all(void *to, size_t len)
{
	return len == 0 || fread(to, 1, len, stdin) == len;
}

static uint8_t *allocate(size_t len)
{
	uint8_t *p = malloc(len);

	if (p == NULL)
		exit(2);
	return p;
}

static bool answer_key(const struct kea_program *prog, uint32_t repeats)
{
	uint32_t len;
	uint8_t *memory = NULL, *key = NULL;
	bool matches = false;

	if (!read_all(&len, sizeof len))
		return false;
	if (len > 0) {
		/* Mostly not at an address divisible by 8, as in life. */
		memory = allocate((size_t)len + len % 8);
		key = memory + len % 8;
	}
	if (!read_all(key, len)) {
		free(memory);
		return false;
	}
	if (prog != NULL) {
		do {
			matches = kea_match(prog, key, len);
		} while (repeats-- > 1);
		putchar(matches ? '1' : '0');
	}
	free(memory);
	return true;
}

static bool answer(void)
{
	uint32_t head[3];
	uint8_t *prog;
	const char *wrong;
	bool ok;

	if (!read_all(head, sizeof head))
		return false;
	prog = allocate(head[0]);
	ok = read_all(prog, head[0]);
	if (!ok) {
		free(prog);
		return false;
	}
	wrong = kea_program_check(prog, head[0]);
	putchar(wrong != NULL ? 'r' : 'm');
	if (wrong != NULL) {
		uint32_t len = (uint32_t)strlen(wrong);

		fwrite(&len, sizeof len, 1, stdout);
		fwrite(wrong, 1, len, stdout);
	}
	for (uint32_t i = 0; ok && i < head[1]; i++)
		ok = answer_key(wrong == NULL ? (const struct kea_program *)(void *)prog : NULL,
		                head[2]);
	free(prog);
	return ok && fflush(stdout) == 0;
}

int main(void)
{
	while (answer())
		;
	return 0;
}

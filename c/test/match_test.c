/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * match_test.c: tests of c/match.c that need no Go. Prints what failed and
 * returns 1, or returns 0.
 *
 *	cc -std=c11 -g -fsanitize=address,undefined -pthread \
 *		-o match_test c/test/match_test.c c/match.c
 *	./match_test [cases | -]
 *
 * With an argument it also reads cases, from that file or from stdin, one in
 * a line: the program and the key in hexadecimal, - for an empty one, and 1
 * or 0 for whether they match. Programs are made by keymask/, whose tests run
 * this one with cases. Nothing here is compiled by hand but one small program
 * with a gate of each kind, to test the checks with.
 */
#include "../match.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

static void expect(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "match_test: %s\n", what);
		failures++;
	}
}

static void *allocate(size_t len)
{
	void *p = calloc(1, len != 0 ? len : 1);

	if (p == NULL) {
		perror("match_test");
		exit(1);
	}
	return p;
}

/* A gate of each kind, and the payloads. Its masks, in the order of gates:
 * "^ab", "^123456789$", "needle", "x.y", "^kl*m*$". */
enum { GATES = 5, ACCEPT = 0, FIXED = 1, SCAN = 2, PLAIN = 3, STAR = 4 };

#define WORD(a, b, c, d, e, f, g, h)                                                  \
	((uint64_t)(a) | (uint64_t)(b) << 8 | (uint64_t)(c) << 16 | (uint64_t)(d) << 24 | \
	 (uint64_t)(e) << 32 | (uint64_t)(f) << 40 | (uint64_t)(g) << 48 | (uint64_t)(h) << 56)

struct sample {
	uint64_t magic, size, gates, reserved[5];
	struct kea_gate gate[GATES];
	struct {
		uint64_t head_len, tail_len;
		struct kea_fixed_word word[2];
	} fixed;
	struct {
		uint64_t len;
		uint8_t bytes[8];
	} scan;
	struct {
		uint64_t words, classes;
		uint8_t class_of[256];
		uint64_t start, again, now, end, star, row[3];
	} plain;
	struct {
		uint64_t words, classes;
		uint8_t class_of[256];
		uint64_t start, again, now, end, star, row[3];
	} star;
};

static struct sample *new_sample(void)
{
	struct sample *s = allocate(sizeof *s);
	const uint64_t any = KEA_GATE_SPAN_MAX, ones = ~UINT64_C(0);

	s->magic = KEA_PROGRAM_MAGIC;
	s->size = sizeof *s;
	s->gates = GATES;

	s->gate[ACCEPT] = (struct kea_gate){
		.head = WORD('a', 'b', 0, 0, 0, 0, 0, 0), .head_mask = 0xffff, .min = 2, .span = any};
	s->gate[FIXED] = (struct kea_gate){.head = WORD('1', '2', '3', '4', '5', '6', '7', '8'),
	                                   .head_mask = ones,
	                                   .min = 9,
	                                   .kind = KEA_GATE_FIXED,
	                                   .at = offsetof(struct sample, fixed)};
	s->fixed.head_len = 9;
	s->fixed.word[0] =
		(struct kea_fixed_word){WORD('1', '2', '3', '4', '5', '6', '7', '8'), ones};
	s->fixed.word[1] =
		(struct kea_fixed_word){WORD('2', '3', '4', '5', '6', '7', '8', '9'), ones};

	s->gate[SCAN] = (struct kea_gate){
		.min = 6, .span = any, .kind = KEA_GATE_SCAN, .at = offsetof(struct sample, scan)};
	s->scan.len = 6;
	memcpy(s->scan.bytes, "needle", 6);

	s->gate[PLAIN] = (struct kea_gate){
		.min = 3, .span = any, .kind = KEA_GATE_PLAIN, .at = offsetof(struct sample, plain)};
	s->plain.words = 1;
	s->plain.classes = 3;
	s->plain.class_of['x'] = 1;
	s->plain.class_of['y'] = 2;
	s->plain.start = s->plain.again = 1;
	s->plain.now = 1 << 3;
	s->plain.row[0] = 1 << 1;
	s->plain.row[1] = 1 << 1 | 1 << 0;
	s->plain.row[2] = 1 << 1 | 1 << 2;

	s->gate[STAR] = (struct kea_gate){.head = 'k',
	                                  .head_mask = 0xff,
	                                  .min = 1,
	                                  .span = any,
	                                  .kind = KEA_GATE_STAR,
	                                  .skip_head = 1,
	                                  .at = offsetof(struct sample, star)};
	s->star.words = 1;
	s->star.classes = 3;
	s->star.class_of['l'] = 1;
	s->star.class_of['m'] = 2;
	s->star.start = 1 << 0 | 1 << 1 | 1 << 2;
	s->star.end = 1 << 2;
	s->star.star = 1 << 0 | 1 << 1;
	s->star.row[1] = 1 << 0;
	s->star.row[2] = 1 << 1;
	return s;
}

static bool match(const struct sample *s, const char *key)
{
	size_t len = strlen(key);

	return kea_match((const struct kea_program *)(const void *)s,
	                 len != 0 ? (const uint8_t *)key : NULL, len);
}

static const char *const matching[] = {"ab",  "abc", "123456789", "a needle", "needle",
                                       "xay", "x\x01yz", "k", "kl", "km", "kllmmm"};
static const char *const other[] = {"",       "a",     "ba",   "12345678", "1234567890", "x23456789",
                                    "needl",  "xy",    "x..y", "kml",      "lm",         "klmx"};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static void test_each_kind_of_gate(const struct sample *s)
{
	for (size_t i = 0; i < COUNT(matching); i++)
		expect(match(s, matching[i]), matching[i]);
	for (size_t i = 0; i < COUNT(other); i++)
		expect(!match(s, other[i]), other[i]);
}

/* Expects the sample to be refused when field is changed to value. */
#define REFUSE(field, value, what)                                          \
	do {                                                                \
		struct sample *copy = new_sample();                         \
		copy->field = (value);                                      \
		expect(kea_program_check(copy, sizeof *copy) != NULL, what); \
		free(copy);                                                 \
	} while (0)

static void test_check_looks_at_every_number(void)
{
	struct sample *s = new_sample();
	const uint64_t huge = ~UINT64_C(0);

	expect(kea_program_check(s, sizeof *s) == NULL, "check refuses the sample");
	free(s);
	expect(kea_program_check(NULL, 0) != NULL, "check accepts NULL");
	REFUSE(magic, 0, "check accepts another magic");
	REFUSE(size, sizeof *copy - 8, "check accepts a smaller size");
	REFUSE(size, huge, "check accepts a greater size");
	REFUSE(reserved[4], 1, "check accepts reserved words");
	REFUSE(gates, sizeof *copy / sizeof copy->gate[0], "check accepts gates past the end");
	REFUSE(gates, huge, "check accepts gates without end");
	for (int i = 0; i < GATES; i++) {
		REFUSE(gate[i].min, KEA_GATE_MIN_MAX + 1, "check accepts a huge min");
		REFUSE(gate[i].span, KEA_GATE_SPAN_MAX + 1, "check accepts a huge span");
		REFUSE(gate[i].kind, 5, "check accepts an unknown kind");
		REFUSE(gate[i].zero, 1, "check accepts reserved bytes");
		REFUSE(gate[i].skip_head, 9, "check accepts a skip past the head");
		REFUSE(gate[i].skip_tail, 9, "check accepts a skip past the tail");
		REFUSE(gate[i].skip_tail, 7, "check accepts a skip past the key");
		if (i == ACCEPT)
			continue;
		REFUSE(gate[i].at, copy->gate[i].at + 1, "check accepts an odd place");
		REFUSE(gate[i].at, sizeof *copy, "check accepts a payload at the end");
		REFUSE(gate[i].at, sizeof *copy - 8, "check accepts a payload cut off");
		REFUSE(gate[i].at, huge - 7, "check accepts a place without end");
	}
	REFUSE(gate[FIXED].min, 0, "check accepts a fixed string in empty keys");
	REFUSE(gate[FIXED].min, 8, "check accepts a fixed string longer than the key");
	REFUSE(fixed.head_len, huge, "check accepts a head without end");
	REFUSE(fixed.tail_len, 10, "check accepts a tail longer than the key");
	REFUSE(gate[SCAN].min, 0, "check accepts a scan of empty keys");
	REFUSE(scan.len, 0, "check accepts an empty literal");
	REFUSE(scan.len, sizeof *copy, "check accepts a literal past the end");
	REFUSE(scan.len, huge, "check accepts a literal without end");
	REFUSE(star.words, 0, "check accepts no words");
	REFUSE(star.words, 2, "check accepts words past the end");
	REFUSE(star.words, KEA_BLOCK_WORDS + 1, "check accepts more words than the stack has");
	REFUSE(star.words, huge, "check accepts words without end");
	REFUSE(star.classes, 0, "check accepts no classes");
	REFUSE(star.classes, 2, "check accepts a class that has no row");
	REFUSE(star.classes, 4, "check accepts rows past the end");
	REFUSE(star.classes, 257, "check accepts more classes than bytes");
}

static void test_check_refuses_pieces(void)
{
	struct sample *s = new_sample();
	uint8_t *odd = allocate(sizeof *s + 1);

	memcpy(odd + 1, s, sizeof *s);
	expect(kea_program_check(odd + 1, sizeof *s) != NULL, "check accepts an odd address");
	free(odd);
	for (size_t len = 0; len < sizeof *s; len++) {
		struct sample *piece = allocate(len);

		memcpy(piece, s, len);
		if (len >= offsetof(struct sample, gates))
			piece->size = len;
		expect(kea_program_check(piece, len) != NULL, "check accepts a piece of a program");
		free(piece);
	}
	free(s);
}

/* Whatever a damaged program matches, if it is accepted it must be safe; the
 * sanitizers look on. */
static void test_damaged_programs_are_safe(void)
{
	struct sample *s = new_sample();
	uint8_t *bytes = (uint8_t *)s;

	for (size_t at = 0; at < sizeof *s; at++)
		for (unsigned bit = 0; bit < 8; bit++) {
			bytes[at] ^= (uint8_t)(1u << bit);
			if (kea_program_check(s, sizeof *s) == NULL) {
				for (size_t i = 0; i < COUNT(matching); i++)
					match(s, matching[i]);
				for (size_t i = 0; i < COUNT(other); i++)
					match(s, other[i]);
			}
			bytes[at] ^= (uint8_t)(1u << bit);
		}
	free(s);
}

static void *match_in_thread(void *sample)
{
	for (int i = 0; i < 1000; i++)
		for (size_t k = 0; k < COUNT(matching); k++)
			if (!match(sample, matching[k]))
				return sample;
	return NULL;
}

static void test_threads_share_a_program(void)
{
	struct sample *s = new_sample();
	pthread_t thread[4];

	for (size_t i = 0; i < COUNT(thread); i++)
		expect(pthread_create(&thread[i], NULL, match_in_thread, s) == 0, "no thread");
	for (size_t i = 0; i < COUNT(thread); i++) {
		void *wrong = NULL;

		pthread_join(thread[i], &wrong);
		expect(wrong == NULL, "a thread saw another result");
	}
	free(s);
}

/* Returns the bytes that text is the hexadecimal form of; the caller frees. */
static uint8_t *from_hex(const char *text, size_t *len)
{
	size_t digits = strcmp(text, "-") == 0 ? 0 : strlen(text);
	uint8_t *bytes = allocate(digits / 2);

	for (size_t i = 0; i < digits / 2; i++) {
		unsigned byte;

		if (sscanf(text + 2 * i, "%2x", &byte) != 1) {
			fprintf(stderr, "match_test: not hexadecimal: %.20s\n", text + 2 * i);
			exit(1);
		}
		bytes[i] = (uint8_t)byte;
	}
	*len = digits / 2;
	return bytes;
}

static void test_case(const char *prog_hex, const char *key_hex, bool want)
{
	size_t prog_len, key_len;
	uint8_t *prog = from_hex(prog_hex, &prog_len), *key = from_hex(key_hex, &key_len);
	const char *wrong = kea_program_check(prog, prog_len);

	if (wrong != NULL) {
		fprintf(stderr, "match_test: program refused: %s\n\t%s\n", wrong, prog_hex);
		failures++;
	} else if (kea_match((const struct kea_program *)(void *)prog, key, key_len) != want) {
		fprintf(stderr, "match_test: key %s: want %d\n\tprogram %s\n", key_hex, want,
		        prog_hex);
		failures++;
	}
	free(prog);
	free(key);
}

static void test_cases(FILE *in)
{
	size_t room = (size_t)64 << 20, count = 0;
	char *line = allocate(room);

	while (fgets(line, (int)room, in) != NULL) {
		char *prog = strtok(line, " \n"), *key = strtok(NULL, " \n");
		char *want = strtok(NULL, " \n");

		if (want == NULL || (*want != '0' && *want != '1')) {
			fprintf(stderr, "match_test: case %zu is not: program key 0|1\n", count + 1);
			exit(1);
		}
		test_case(prog, key, *want == '1');
		count++;
	}
	expect(count > 0, "no cases");
	printf("match_test: %zu cases\n", count);
	free(line);
}

int main(int argc, char **argv)
{
	struct sample *s = new_sample();

	test_each_kind_of_gate(s);
	free(s);
	test_check_looks_at_every_number();
	test_check_refuses_pieces();
	test_damaged_programs_are_safe();
	test_threads_share_a_program();
	if (argc > 1) {
		FILE *in = strcmp(argv[1], "-") == 0 ? stdin : fopen(argv[1], "r");

		if (in == NULL) {
			perror(argv[1]);
			return 1;
		}
		test_cases(in);
		if (in != stdin)
			fclose(in);
	}
	if (failures > 0)
		fprintf(stderr, "match_test: %d failures\n", failures);
	return failures > 0;
}

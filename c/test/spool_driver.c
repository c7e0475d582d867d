/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * spool_driver.c: lets another program use c/spool.c, c/spooldir.c and c/owner.c
 * over its pipes, for the differential and fuzz tests in fallback/. It works in
 * its working folder.
 *
 * One request after another on stdin, until end of file; numbers are
 * little-endian. Each is a letter and what belongs to it:
 *
 *	w  name, count (4), that many records: writes a spool file. Answer: enum
 *	   kea_spool_written (1).
 *	r  name: reads a spool file. Answer: enum kea_spool_state (1), count (4),
 *	   that many records.
 *	n  name: takes it apart. Answer: is it a spool file's (1), id, number (8),
 *	   whole (1), temporary (1).
 *	o  id: reads an owner file. Answer: is there one (1), the facts in the order
 *	   of enum kea_fact.
 *
 * Names, records, ids and facts are a length (4) and as many bytes.
 */
#include "../spooldir.c"

/* In the place of the C library's: nothing here need survive a power failure. */
int fsync(int fd)
{
	(void)fd;
	return 0;
}

static void get(void *to, size_t len)
{
	if (len > 0 && fread(to, 1, len, stdin) != len)
		exit(2);
}

static void put(const void *bytes, size_t len)
{
	fwrite(bytes, 1, len, stdout);
}

static void put_bytes(const void *bytes, size_t len)
{
	uint32_t len32 = (uint32_t)len;

	put(&len32, sizeof(len32));
	put(bytes, len);
}

static void get_text(char *text, size_t size)
{
	uint32_t len;

	get(&len, sizeof(len));
	if (len >= size)
		exit(2);
	get(text, len);
	text[len] = 0;
}

static void write_file(void)
{
	struct kea_queue q = { 0 };
	struct kea_spool s;
	struct kea_run run;
	char name[KEA_SPOOL_NAME_MAX];
	uint32_t count, len;

	get_text(name, sizeof(name));
	get(&count, sizeof(count));
	while (count-- > 0) {
		get(&len, sizeof(len));
		get(kea_queue_append(&q, len), len);
	}
	if (!kea_spool_begin(&s, AT_FDCWD, name))
		exit(2);
	while (kea_queue_peek(&q, 3, SIZE_MAX, &run)) {
		kea_queue_take(&q, &run);
		kea_spool_add(&s, &run);
		kea_run_release(&q, &run, run.count);
	}
	putchar(kea_spool_commit(&s));
	kea_queue_free(&q);
}

static void put_run(void *arg, const struct kea_run *run)
{
	uint8_t *pos = run->start;

	(void)arg;
	for (uint32_t i = 0; i < run->count; i++) {
		size_t len;
		const void *record = kea_record_at(pos, &len);

		put_bytes(record, len);
		pos = kea_record_after(pos);
	}
}

static void read_file(void)
{
	struct kea_queue q = { 0 };
	char name[KEA_SPOOL_NAME_MAX];
	uint64_t count;
	uint32_t count32;

	get_text(name, sizeof(name));
	putchar(kea_spool_read(AT_FDCWD, name, &q, &count));
	count32 = (uint32_t)count;
	put(&count32, sizeof(count32));
	kea_queue_visit(&q, put_run, NULL);
	kea_queue_free(&q);
}

static void read_name(void)
{
	char text[4 * KEA_SPOOL_NAME_MAX];
	struct name n;

	get_text(text, sizeof(text));
	putchar(take_apart(text, &n));
	put_bytes(n.id, strlen(n.id));
	put(&n.number, sizeof(n.number));
	putchar(n.whole);
	putchar(n.temporary);
}

static void read_owner(void)
{
	char id[KEA_OWNER_ID_LEN + 1];
	struct kea_facts f;

	get_text(id, sizeof(id));
	putchar(kea_owner_look(AT_FDCWD, id, &f) != KEA_OWNER_UNKNOWN);
	for (int i = 0; i < KEA_FACTS; i++)
		put_bytes(f.text[i], strlen(f.text[i]));
}

int main(void)
{
	int what;

	while ((what = getchar()) != EOF) {
		if (what == 'w')
			write_file();
		else if (what == 'r')
			read_file();
		else if (what == 'n')
			read_name();
		else
			read_owner();
		fflush(stdout);
	}
	return 0;
}

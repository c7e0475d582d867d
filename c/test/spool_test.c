/*
 * spool_test.c: a spool file is read as it was written; cut at any byte or with
 * any byte changed, what comes before the damage is taken in and the file is
 * kept aside.
 */
#include "../spool.h"
#include "check.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EVENTS 20
#define PATH "test.spool"

static void add(struct kea_queue *q, uint64_t seq)
{
	struct kea_record r = { .magic = KEA_RECORD_MAGIC,
				.version = KEA_RECORD_PLAIN,
				.db_len = 1,
				.event_len = 3,
				.seq = seq };
	char body[32];
	int n = snprintf(body, sizeof(body), "0\nset\nkey%d", (int)seq);
	uint8_t *room = kea_queue_append(q, sizeof(r) + (size_t)n);

	memcpy(room, &r, sizeof(r));
	memcpy(room + sizeof(r), body, (size_t)n);
}

static void write_whole(void)
{
	struct kea_queue q = { 0 };
	struct kea_spool s;
	struct kea_run run;

	for (uint64_t i = 1; i <= EVENTS; i++)
		add(&q, i);
	CHECK(kea_spool_begin(&s, PATH));
	while (kea_queue_peek(&q, 7, SIZE_MAX, &run)) {
		kea_queue_take(&q, &run);
		kea_spool_add(&s, &run);
		kea_run_release(&q, &run, run.count);
	}
	CHECK(kea_spool_commit(&s, PATH));
	CHECK(access(PATH ".new", F_OK) != 0);
	kea_queue_free(&q);
}

/* Reads, checks order, returns the state; *n is how many there were. */
static enum kea_spool_state read_back(uint64_t *n)
{
	struct kea_queue q = { 0 };
	struct kea_run run;
	uint64_t seq = 1;
	enum kea_spool_state state = kea_spool_read(PATH, &q, n);

	CHECK(q.count == *n);
	while (kea_queue_peek(&q, 1, SIZE_MAX, &run)) {
		size_t len;

		CHECK(kea_record_at(run.start, &len)->seq == seq++);
		kea_queue_take(&q, &run);
		kea_run_release(&q, &run, 1);
	}
	kea_queue_free(&q);
	CHECK(kea_queue_allocated() == 0);
	return state;
}

static long file_size(void)
{
	struct stat st;

	CHECK(stat(PATH, &st) == 0);
	return (long)st.st_size;
}

int main(void)
{
	char folder[] = "/tmp/spool_test.XXXXXX";
	uint64_t n;
	long size;
	FILE *f;

	CHECK(mkdtemp(folder) && chdir(folder) == 0);
	CHECK(read_back(&n) == KEA_SPOOL_NONE && n == 0);
	write_whole();
	size = file_size();
	CHECK(read_back(&n) == KEA_SPOOL_WHOLE && n == EVENTS);
	for (long cut = 0; cut < size; cut++) {
		write_whole();
		CHECK(truncate(PATH, cut) == 0);
		CHECK(read_back(&n) == KEA_SPOOL_DAMAGED);
		CHECK(n <= EVENTS);
		CHECK(access(PATH, F_OK) != 0 &&
		      access(PATH ".damaged", F_OK) == 0);
	}
	for (long at = 0; at < size; at++) {
		int c;

		write_whole();
		CHECK((f = fopen(PATH, "r+b")));
		fseek(f, at, SEEK_SET);
		c = fgetc(f);
		fseek(f, at, SEEK_SET);
		fputc(c ^ 0x55, f);
		fclose(f);
		CHECK(read_back(&n) == KEA_SPOOL_DAMAGED);
		CHECK(n <= EVENTS);
	}
	unlink(PATH);
	unlink(PATH ".damaged");
	CHECK(chdir("/") == 0 && rmdir(folder) == 0);
	puts("spool_test: ok");
	return 0;
}

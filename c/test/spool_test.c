/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * spool_test.c: a spool file is read as it was written; cut at any byte or with
 * any byte changed, what comes before the damage is taken in. What is in the way
 * is neither followed, nor waited for, nor written over.
 */
#include "../spool.h"
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define EVENTS 4
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

static int dir;
static int failing_sync; /* the how many-th from here fails; 0: none */

/* In the place of the C library's, which would take minutes here, and can't be
 * made to fail. */
int fsync(int fd)
{
	(void)fd;
	if (failing_sync == 0 || --failing_sync > 0)
		return 0;
	errno = EIO;
	return -1;
}

static enum kea_spool_written try_write(uint64_t events)
{
	struct kea_queue q = { 0 };
	struct kea_spool s;
	struct kea_run run;
	enum kea_spool_written done;
	int why;

	for (uint64_t i = 1; i <= events; i++)
		add(&q, i);
	CHECK(kea_spool_begin(&s, dir, PATH));
	while (kea_queue_peek(&q, 7, SIZE_MAX, &run)) {
		kea_queue_take(&q, &run);
		kea_spool_add(&s, &run);
		kea_run_release(&q, &run, run.count);
	}
	done = kea_spool_commit(&s);
	why = errno;
	CHECK(access(PATH ".new", F_OK) != 0);
	kea_queue_free(&q);
	errno = why;
	return done;
}

static void write_whole(void)
{
	unlink(PATH);
	CHECK(try_write(EVENTS) == KEA_SPOOL_WRITTEN);
}

/* Reads, checks order, returns the state; *n is how many there were. */
static enum kea_spool_state read_back(uint64_t *n)
{
	struct kea_queue q = { 0 };
	struct kea_run run;
	uint64_t seq = 1;
	enum kea_spool_state state = kea_spool_read(dir, PATH, &q, n);

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

static void put(const char *bytes, long len)
{
	FILE *f = fopen(PATH, "wb");

	CHECK(f && fwrite(bytes, 1, (size_t)len, f) == (size_t)len);
	CHECK(fclose(f) == 0);
}

static void test_damage(void)
{
	char whole[1024];
	uint64_t n;
	long size;
	FILE *f;

	write_whole();
	size = file_size();
	CHECK((f = fopen(PATH, "rb")) && size <= (long)sizeof(whole));
	CHECK(fread(whole, 1, (size_t)size, f) == (size_t)size);
	fclose(f);
	CHECK(read_back(&n) == KEA_SPOOL_WHOLE && n == EVENTS);
	for (long cut = 0; cut < size; cut++) {
		put(whole, cut);
		CHECK(read_back(&n) == KEA_SPOOL_DAMAGED);
		CHECK(n <= EVENTS && file_size() == cut);
	}
	for (long at = 0; at < size; at++) {
		whole[at] ^= 0x55;
		put(whole, size);
		whole[at] ^= 0x55;
		CHECK(read_back(&n) == KEA_SPOOL_DAMAGED);
		CHECK(n <= EVENTS && file_size() == size);
	}
	/* A hole of many gigabytes in the place of an event. */
	write_whole();
	CHECK((f = fopen(PATH, "r+b")));
	fseek(f, 16, SEEK_SET);
	CHECK(fwrite("\0\0\0\xf0", 1, 4, f) == 4 && fclose(f) == 0);
	CHECK(truncate(PATH, 28) == 0 && truncate(PATH, (off_t)1 << 36) == 0);
	CHECK(read_back(&n) == KEA_SPOOL_DAMAGED && n == 0);
	unlink(PATH);
}

/* What is in the place of the file, or of the one being written. */
static void test_in_the_way(void)
{
	struct kea_spool s;
	struct stat st;
	uint64_t n;
	FILE *f;

	CHECK(mkfifo(PATH, 0600) == 0 && read_back(&n) == KEA_SPOOL_IRREGULAR);
	CHECK(try_write(1) == KEA_SPOOL_FAILED && errno == EEXIST);
	CHECK(unlink(PATH) == 0 && mkdir(PATH, 0700) == 0);
	CHECK(read_back(&n) == KEA_SPOOL_IRREGULAR);
	CHECK(try_write(1) == KEA_SPOOL_FAILED && errno == EEXIST);
	CHECK(rmdir(PATH) == 0 && symlink(PATH, PATH) == 0);
	CHECK(read_back(&n) == KEA_SPOOL_IRREGULAR && unlink(PATH) == 0);
	CHECK(symlink("/dev/zero", PATH) == 0);
	CHECK(read_back(&n) == KEA_SPOOL_IRREGULAR && unlink(PATH) == 0);

	/* A link to a file of somebody's, and a server's leftover. */
	CHECK((f = fopen("precious", "wb")) && fputs("x", f) >= 0);
	CHECK(fclose(f) == 0 && symlink("precious", PATH ".new") == 0);
	umask(0);
	write_whole();
	CHECK(lstat(PATH, &st) == 0 && S_ISREG(st.st_mode));
	CHECK((st.st_mode & 0777) == 0600);
	CHECK(stat("precious", &st) == 0 && st.st_size == 1);
	CHECK(unlink("precious") == 0);
	CHECK(link(PATH, PATH ".new") == 0);
	CHECK(try_write(1) == KEA_SPOOL_FAILED && errno == EEXIST);
	CHECK(read_back(&n) == KEA_SPOOL_WHOLE && n == EVENTS);
	unlink(PATH);

	CHECK(mkdir(PATH ".new", 0700) == 0);
	CHECK(!kea_spool_begin(&s, dir, PATH) && errno == EISDIR);
	CHECK(rmdir(PATH ".new") == 0);
}

/* No room for the whole file: what is there stays. */
static void test_full(void)
{
	struct rlimit was, limit;
	uint64_t n;

	CHECK(getrlimit(RLIMIT_FSIZE, &was) == 0);
	signal(SIGXFSZ, SIG_IGN);
	for (rlim_t room = 0; room < 300; room += 50) {
		limit = (struct rlimit){ room, was.rlim_max };
		CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
		CHECK(try_write(2 * EVENTS) == KEA_SPOOL_FAILED);
		CHECK(errno == EFBIG);
		CHECK(setrlimit(RLIMIT_FSIZE, &was) == 0);
		CHECK(read_back(&n) == KEA_SPOOL_NONE);
	}
}

/* The file's own sync fails: there is none. The folder's fails: there is one. */
static void test_sync(void)
{
	uint64_t n;

	failing_sync = 1;
	CHECK(try_write(2) == KEA_SPOOL_FAILED && errno == EIO);
	CHECK(read_back(&n) == KEA_SPOOL_NONE);
	failing_sync = 2;
	CHECK(try_write(EVENTS) == KEA_SPOOL_UNSYNCED && errno == EIO);
	CHECK(read_back(&n) == KEA_SPOOL_WHOLE && n == EVENTS);
	CHECK(failing_sync == 0 && unlink(PATH) == 0);
}

int main(void)
{
	char folder[] = "/tmp/spool_test.XXXXXX";
	uint64_t n;

	CHECK(mkdtemp(folder) && chdir(folder) == 0);
	dir = open(".", O_RDONLY | O_DIRECTORY);
	CHECK(dir >= 0 && read_back(&n) == KEA_SPOOL_NONE && n == 0);
	test_damage();
	test_in_the_way();
	test_full();
	test_sync();
	CHECK(close(dir) == 0 && chdir("/") == 0 && rmdir(folder) == 0);
	puts("spool_test: ok");
	return 0;
}

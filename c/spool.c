/* SPDX-License-Identifier: BSD-3-Clause */
/* spool.c: the spool file of spool.h. */
#include "spool.h"

#include "fault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define END UINT32_MAX /* in the place of a length */

static const char magic[16] = "key_evt_amqp 1\n\n";

/* FNV-1a, 64 bit (Fowler, Noll, Vo): it is to find damage, not malice. */
static uint64_t check_sum(const uint8_t *bytes, size_t len)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	while (len-- > 0)
		h = (h ^ *bytes++) * UINT64_C(0x100000001b3);
	return h;
}

static void put(struct kea_spool *s, const void *bytes, size_t len)
{
	if (s->error == 0 && fwrite(bytes, 1, len, s->file) != len)
		s->error = errno;
}

bool kea_spool_begin(struct kea_spool *s, int dir, const char *name)
{
	int fd;

	memset(s, 0, sizeof(*s));
	s->dir = dir;
	snprintf(s->name, sizeof(s->name), "%s", name);
	snprintf(s->temporary, sizeof(s->temporary), "%s.new", s->name);
	/* Left behind by a server that was killed, or laid there by somebody. */
	if (unlinkat(dir, s->temporary, 0) != 0 && errno != ENOENT)
		return false;
	fd = openat(dir, s->temporary,
		    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return false;
	s->file = fdopen(fd, "wb");
	if (!s->file) {
		int why = errno;

		close(fd);
		unlinkat(dir, s->temporary, 0);
		errno = why;
		return false;
	}
	put(s, magic, sizeof(magic));
	return true;
}

void kea_spool_add(struct kea_spool *s, const struct kea_run *run)
{
	uint8_t *pos = run->start;

	for (uint32_t i = 0; i < run->count; i++) {
		size_t len;
		const uint8_t *r = (uint8_t *)kea_record_at(pos, &len);
		uint32_t len32 = (uint32_t)len;
		uint64_t sum = check_sum(r, len);

		put(s, &len32, sizeof(len32));
		put(s, &sum, sizeof(sum));
		put(s, r, len);
		s->count++;
		KEA_FAULT("spool-added");
		pos = kea_record_after(pos);
	}
}

/* place renames the file, but over nothing. */
static bool place(struct kea_spool *s)
{
	if (renameat2(s->dir, s->temporary, s->dir, s->name,
		      RENAME_NOREPLACE) == 0)
		return true;
	if (errno != EINVAL && errno != ENOSYS)
		return false;
	/* Not every file system can do that. */
	if (linkat(s->dir, s->temporary, s->dir, s->name, 0) != 0)
		return false;
	unlinkat(s->dir, s->temporary, 0);
	return true;
}

enum kea_spool_written kea_spool_commit(struct kea_spool *s)
{
	uint32_t end = END;

	put(s, &end, sizeof(end));
	put(s, &s->count, sizeof(s->count));
	if (s->error == 0 && fflush(s->file) != 0)
		s->error = errno;
	KEA_FAULT("spool-written");
	if (s->error == 0 && fsync(fileno(s->file)) != 0)
		s->error = errno;
	if (fclose(s->file) != 0 && s->error == 0)
		s->error = errno;
	KEA_FAULT("spool-synced");
	if (s->error == 0 && !place(s))
		s->error = errno;
	if (s->error != 0) {
		unlinkat(s->dir, s->temporary, 0);
		errno = s->error;
		return KEA_SPOOL_FAILED;
	}
	KEA_FAULT("spool-renamed");
	/* The rename is durable only when the folder is. */
	return fsync(s->dir) == 0 ? KEA_SPOOL_WRITTEN : KEA_SPOOL_UNSYNCED;
}

/* Reads one event, the count-th, into the queue; 1 done, 0 the end, -1 damage. */
static int read_one(FILE *f, uint64_t left, struct kea_queue *q, uint64_t count)
{
	uint8_t head[12];
	size_t n = fread(head, 1, sizeof(head), f);
	uint32_t len;
	uint64_t sum;
	uint8_t *bytes;
	bool sound;
	int first;

	memcpy(&len, head, 4);
	memcpy(&sum, head + 4, 8);
	if (n == sizeof(head) && len == END && sum == count &&
	    left == sizeof(head))
		return 0;
	if (n < sizeof(head) || len > left - sizeof(head))
		return -1;
	/* A look before memory is taken: a file may have holes. */
	first = getc(f);
	if (first != KEA_RECORD_MAGIC || ungetc(first, f) == EOF)
		return -1;
	bytes = kea_queue_scratch(len);
	sound = fread(bytes, 1, len, f) == len &&
		check_sum(bytes, len) == sum && kea_record_valid(bytes, len);
	if (sound)
		memcpy(kea_queue_append(q, len), bytes, len);
	KEA_FAULT("spool-read");
	free(bytes);
	return sound ? 1 : -1;
}

static enum kea_spool_state read_all(FILE *f, uint64_t size,
				     struct kea_queue *q, uint64_t *count)
{
	char head[sizeof(magic)];
	int got = -1;

	errno = 0;
	if (fread(head, 1, sizeof(head), f) == sizeof(head) &&
	    memcmp(head, magic, sizeof(head)) == 0)
		while ((got = read_one(f, size - (uint64_t)ftello(f), q,
				       *count)) == 1)
			(*count)++;
	if (got == 0)
		return KEA_SPOOL_WHOLE;
	return ferror(f) ? KEA_SPOOL_UNREADABLE : KEA_SPOOL_DAMAGED;
}

enum kea_spool_state kea_spool_read(int dir, const char *name,
				    struct kea_queue *q, uint64_t *count)
{
	int fd = openat(dir, name,
			O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY |
				O_CLOEXEC);
	enum kea_spool_state state = KEA_SPOOL_UNREADABLE;
	struct stat st;
	FILE *f = NULL;
	int why;

	*count = 0;
	if (fd < 0 && errno == ENOENT)
		return KEA_SPOOL_NONE;
	if (fd < 0)
		return errno == ELOOP || errno == ENXIO ? KEA_SPOOL_IRREGULAR :
							  KEA_SPOOL_UNREADABLE;
	if (fstat(fd, &st) == 0) {
		if (!S_ISREG(st.st_mode))
			state = KEA_SPOOL_IRREGULAR;
		else
			f = fdopen(fd, "rb");
	}
	if (f)
		state = read_all(f, (uint64_t)st.st_size, q, count);
	why = errno;
	if (f)
		fclose(f);
	else
		close(fd);
	errno = why;
	return state;
}

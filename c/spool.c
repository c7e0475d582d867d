/* spool.c: the spool file of spool.h. */
#include "spool.h"

#include "fault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
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
	if (!s->failed && fwrite(bytes, 1, len, s->file) != len)
		s->failed = true;
}

bool kea_spool_begin(struct kea_spool *s, const char *path)
{
	int n;

	memset(s, 0, sizeof(*s));
	n = snprintf(s->temporary, sizeof(s->temporary), "%s.new", path);
	if (n < 0 || (size_t)n >= sizeof(s->temporary)) {
		errno = ENAMETOOLONG;
		return false;
	}
	s->file = fopen(s->temporary, "wbe");
	if (!s->file)
		return false;
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

/* The rename is durable only when the folder is. */
static bool sync_folder(void)
{
	int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool ok = fd >= 0 && fsync(fd) == 0;

	if (fd >= 0)
		close(fd);
	return ok;
}

bool kea_spool_commit(struct kea_spool *s, const char *path)
{
	uint32_t end = END;
	bool ok;
	int why;

	put(s, &end, sizeof(end));
	put(s, &s->count, sizeof(s->count));
	ok = !s->failed && fflush(s->file) == 0;
	KEA_FAULT("spool-written");
	ok = ok && fsync(fileno(s->file)) == 0;
	why = errno;

	ok = fclose(s->file) == 0 && ok;
	KEA_FAULT("spool-synced");
	if (ok && rename(s->temporary, path) == 0) {
		KEA_FAULT("spool-renamed");
		return sync_folder();
	}
	if (ok)
		why = errno;
	unlink(s->temporary);
	errno = why;
	return false;
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

	memcpy(&len, head, 4);
	memcpy(&sum, head + 4, 8);
	if (n == sizeof(head) && len == END && sum == count &&
	    left == sizeof(head))
		return 0;
	if (n < sizeof(head) || len > left - sizeof(head))
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

enum kea_spool_state kea_spool_read(const char *path, struct kea_queue *q,
				    uint64_t *count)
{
	FILE *f = fopen(path, "rbe");
	char head[sizeof(magic)], aside[256];
	long size = 0;
	int got = -1;

	*count = 0;
	if (!f)
		return KEA_SPOOL_NONE;
	if (fseek(f, 0, SEEK_END) == 0 && (size = ftell(f)) >= 0)
		rewind(f);
	if (size >= 0 && fread(head, 1, sizeof(head), f) == sizeof(head) &&
	    memcmp(head, magic, sizeof(head)) == 0)
		while ((got = read_one(f, (uint64_t)(size - ftell(f)), q,
				       *count)) == 1)
			(*count)++;
	fclose(f);
	if (got == 0)
		return KEA_SPOOL_WHOLE;
	snprintf(aside, sizeof(aside), "%s.damaged", path);
	(void)!rename(path, aside);
	return KEA_SPOOL_DAMAGED;
}

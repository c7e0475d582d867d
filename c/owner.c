/* SPDX-License-Identifier: BSD-3-Clause */
/* owner.c: the owners of a dir, owner.h. */
#include "owner.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PREFIX "key_evt_amqp."
#define SUFFIX ".owner"
#define FIRST_LINE "key_evt_amqp owner 1\n"
#define FILE_MAX (sizeof(struct kea_facts) + 256)
/* Another server that loads holds the dir for less than a millisecond. */
#define DIR_TRIES 200
#define DIR_PAUSE_NS (1 * 1000 * 1000)

static const char *const words[KEA_FACTS] = {
	[KEA_FACT_CONFIG] = "config-file", [KEA_FACT_DATASET] = "dataset",
	[KEA_FACT_NODE] = "node",	   [KEA_FACT_SOCKET] = "unixsocket",
	[KEA_FACT_PORT] = "port",	   [KEA_FACT_TLS_PORT] = "tls-port",
};

void kea_facts_set(struct kea_facts *f, enum kea_fact which, const char *text)
{
	snprintf(f->text[which], sizeof(f->text[which]), "%s", text);
	for (char *c = f->text[which]; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
}

static bool same_text(const char *a, const char *b)
{
	return a[0] && strcmp(a, b) == 0;
}

/* A port that both have, whichever of the two it is. */
static bool same_port(const struct kea_facts *a, const struct kea_facts *b)
{
	static const enum kea_fact ports[] = { KEA_FACT_PORT,
					       KEA_FACT_TLS_PORT };

	for (int i = 0; i < 4; i++) {
		const char *p = a->text[ports[i / 2]];

		if (strcmp(p, "0") != 0 && same_text(p, b->text[ports[i % 2]]))
			return true;
	}
	return false;
}

int kea_owner_judge(const struct kea_facts *server,
		    const struct kea_facts *owner)
{
	bool same[KEA_FACTS], all = true, address;
	int differ = 0;

	for (int i = 0; i < KEA_FACTS; i++) {
		const char *a = server->text[i], *b = owner->text[i];

		same[i] = same_text(a, b);
		all = all && strcmp(a, b) == 0;
		if ((i == KEA_FACT_CONFIG || i == KEA_FACT_DATASET) && a[0] &&
		    b[0] && !same[i])
			differ++;
	}
	address = same[KEA_FACT_SOCKET] || same_port(server, owner);
	differ += !address;
	if (!same[KEA_FACT_NODE] &&
	    (differ >= 2 || !(address || same[KEA_FACT_CONFIG] ||
			      same[KEA_FACT_DATASET])))
		return -1;
	return all * 16 + same[KEA_FACT_NODE] * 8 + same[KEA_FACT_CONFIG] * 4 +
	       address * 2 + same[KEA_FACT_DATASET];
}

static void name_of(char *name, size_t size, const char *id)
{
	snprintf(name, size, PREFIX "%.*s" SUFFIX, KEA_OWNER_ID_LEN, id);
}

/* The id in a file's name; NULL when it is not an owner's. */
static const char *id_in(const char *name)
{
	const char *id = name + strlen(PREFIX);

	if (strncmp(name, PREFIX, strlen(PREFIX)) != 0 ||
	    strspn(id, "0123456789abcdef") != KEA_OWNER_ID_LEN ||
	    strcmp(id + KEA_OWNER_ID_LEN, SUFFIX) != 0)
		return NULL;
	return id;
}

static int open_owner(int dir, const char *id, int how)
{
	char name[64];
	struct stat st;
	int fd;

	name_of(name, sizeof(name), id);
	fd = openat(dir, name,
		    how | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);
	if (fd >= 0 && (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))) {
		close(fd);
		errno = EEXIST;
		return -1;
	}
	return fd;
}

/*
 * A lock of the process's, not of the descriptor's: what the server forks must
 * not hold it. It ends when any descriptor of the file is closed, so the own
 * file is never opened twice. Where there are no locks nobody is known to run.
 */
static struct flock whole_file(short type)
{
	return (struct flock){ .l_type = type, .l_whence = SEEK_SET };
}

static bool runs(int fd)
{
	struct flock lock = whole_file(F_WRLCK);

	return fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static bool read_facts(int fd, struct kea_facts *f)
{
	char text[FILE_MAX], *line = text;
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	memset(f, 0, sizeof(*f));
	if (n < 0)
		return false;
	text[n] = 0;
	if (strncmp(text, FIRST_LINE, strlen(FIRST_LINE)) != 0)
		return false;
	for (char *end; (end = strchr(line, '\n')); line = end + 1) {
		*end = 0;
		for (int i = 0; i < KEA_FACTS; i++) {
			size_t len = strlen(words[i]);

			if (strncmp(line, words[i], len) == 0 &&
			    line[len] == ' ')
				kea_facts_set(f, (enum kea_fact)i,
					      line + len + 1);
		}
	}
	return true;
}

static bool write_facts(int fd, const struct kea_facts *f)
{
	char text[FILE_MAX];
	size_t n = (size_t)sprintf(text, FIRST_LINE);

	for (int i = 0; i < KEA_FACTS; i++)
		n += (size_t)sprintf(text + n, "%s %s\n", words[i], f->text[i]);
	/* In place: the lock is this file's. */
	return pwrite(fd, text, n, 0) == (ssize_t)n &&
	       ftruncate(fd, (off_t)n) == 0 && fsync(fd) == 0;
}

enum kea_owner_state kea_owner_look(int dir, const char *id,
				    struct kea_facts *facts)
{
	int fd = open_owner(dir, id, O_RDONLY);
	enum kea_owner_state state;

	memset(facts, 0, sizeof(*facts));
	if (fd < 0)
		return KEA_OWNER_UNKNOWN;
	state = runs(fd) ? KEA_OWNER_RUNS : KEA_OWNER_AWAY;
	read_facts(fd, facts);
	close(fd);
	return state;
}

/* best_of finds the id of the owner who fits best; false: nobody does, or two
 * do equally well and it could be either. */
static bool best_of(int dir, const struct kea_facts *mine, char *id)
{
	int best = -1, ties = 0;
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	while ((e = readdir(d))) {
		const char *found = id_in(e->d_name);
		struct kea_facts facts;
		int fits;

		if (!found ||
		    kea_owner_look(dir, found, &facts) != KEA_OWNER_AWAY)
			continue;
		fits = kea_owner_judge(mine, &facts);
		if (fits < 0 || fits < best)
			continue;
		ties = fits > best ? 0 : ties + 1;
		best = fits;
		memcpy(id, found, KEA_OWNER_ID_LEN);
	}
	closedir(d);
	id[best >= 0 && ties == 0 ? KEA_OWNER_ID_LEN : 0] = 0;
	return id[0] != 0;
}

static void new_id(char *id)
{
	uint64_t random;
	struct timespec now;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random)) {
		clock_gettime(CLOCK_REALTIME, &now);
		random = (uint64_t)now.tv_nsec << 32 ^ (uint64_t)now.tv_sec ^
			 (uint64_t)getpid() << 20;
	}
	snprintf(id, KEA_OWNER_ID_LEN + 1, "%016llx",
		 (unsigned long long)random);
}

/* lock_dir keeps other servers that load here out, for a bounded time: better
 * without it than not at all. -1: not locked. */
static int lock_dir(int dir)
{
	struct timespec pause = { .tv_nsec = DIR_PAUSE_NS };
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	for (int i = 0; fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0 &&
			errno == EWOULDBLOCK && i < DIR_TRIES;
	     i++)
		nanosleep(&pause, NULL);
	return fd;
}

/* take opens and locks the owner file of o->id. False: errno says why. */
static bool take(struct kea_owner *o, int dir, int how)
{
	struct flock lock = whole_file(F_WRLCK);

	o->lock = open_owner(dir, o->id, how);
	return o->lock >= 0 && (fcntl(o->lock, F_SETLK, &lock) == 0 ||
				(errno != EACCES && errno != EAGAIN));
}

void kea_owner_claim(struct kea_owner *o, int dir, const struct kea_facts *mine)
{
	int dir_lock = lock_dir(dir);
	bool mine_now = false;

	*o = (struct kea_owner){ .lock = -1 };
	if (best_of(dir, mine, o->id)) {
		mine_now = take(o, dir, O_RDWR);
		/* Another server may have been quicker, its dir unlocked. An id
		 * whose file may only be read is ours all the same. */
		if (!mine_now && o->lock >= 0) {
			kea_owner_release(o);
			o->id[0] = 0;
		}
	}
	if (mine_now && read_facts(o->lock, &o->was))
		for (int i = 0; i < KEA_FACTS; i++)
			o->changed |= strcmp(o->was.text[i], mine->text[i]) != 0;
	if (!o->id[0]) {
		new_id(o->id);
		mine_now = take(o, dir, O_RDWR | O_CREAT | O_EXCL);
	}
	if (!mine_now || !write_facts(o->lock, mine) || fsync(dir) != 0)
		o->error = errno;
	if (dir_lock >= 0)
		close(dir_lock);
}

void kea_owner_release(struct kea_owner *o)
{
	if (o->lock >= 0)
		close(o->lock);
	o->lock = -1;
}

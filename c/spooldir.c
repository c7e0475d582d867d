/* SPDX-License-Identifier: BSD-3-Clause */
/* spooldir.c: the files of spooldir.h. */
#include "spooldir.h"

#include "fault.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX "key_evt_amqp."
#define SUFFIX ".spool"
#define MAX_TOLD 8 /* files named in the log at a load */
#define MAX_TRIES 100

struct kea_spool_held {
	uint64_t number;
	bool damaged;
};

/* A file's name, taken apart. */
struct name {
	char text[KEA_SPOOL_NAME_MAX];
	char id[KEA_OWNER_ID_LEN + 1]; /* "": named by port, as once */
	uint64_t number;               /* or, without an id, the port */
	bool whole;                    /* ends in .spool, and not .spool.new */
	bool temporary;                /* ends in .spool.new */
};

__attribute__((format(printf, 3, 4))) static void
say(const struct kea_spool_dir *d, const char *level, const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	d->say(level, text);
}

static bool take_apart(const char *text, struct name *n)
{
	const char *at = text + strlen(PREFIX);
	char *end;

	memset(n, 0, sizeof(*n));
	if (strncmp(text, PREFIX, strlen(PREFIX)) != 0 ||
	    strlen(text) >= sizeof(n->text))
		return false;
	strcpy(n->text, text);
	if (strspn(at, "0123456789abcdef") == KEA_OWNER_ID_LEN &&
	    at[KEA_OWNER_ID_LEN] == '.') {
		memcpy(n->id, at, KEA_OWNER_ID_LEN);
		at += KEA_OWNER_ID_LEN + 1;
	}
	if (*at < '0' || *at > '9')
		return false;
	errno = 0;
	n->number = strtoull(at, &end, 10);
	if (errno != 0 || strncmp(end, SUFFIX, strlen(SUFFIX)) != 0)
		return false;
	end += strlen(SUFFIX);
	n->whole = *end == 0;
	n->temporary = strcmp(end, ".new") == 0;
	return true;
}

static void own_name(const struct kea_spool_dir *d, uint64_t number, char *name)
{
	snprintf(name, KEA_SPOOL_NAME_MAX, PREFIX "%s.%llu" SUFFIX, d->owner.id,
		 (unsigned long long)number);
}

/* for_each calls what with each file that has to do with spooling. */
static void for_each(struct kea_spool_dir *d,
		     void (*what)(struct kea_spool_dir *, const struct name *,
				  void *),
		     void *arg)
{
	int fd = openat(d->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	struct name n;

	if (!dir) {
		say(d, "warning", "can't look for spool files: %s",
		    strerror(errno));
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((e = readdir(dir)))
		if (take_apart(e->d_name, &n))
			what(d, &n, arg);
	closedir(dir);
}

/* ---- what a load finds -------------------------------------------------- */

static void count_up(struct kea_spool_dir *d, const struct name *n, void *arg)
{
	(void)arg;
	if (strcmp(n->id, d->owner.id) == 0 && n->number >= d->next &&
	    n->number < UINT64_MAX)
		d->next = n->number + 1;
}

/* clear removes what a killed server began to write: nobody relies on it. */
static void clear(struct kea_spool_dir *d, const struct name *n, void *arg)
{
	(void)arg;
	if (n->temporary && strcmp(n->id, d->owner.id) == 0)
		unlinkat(d->fd, n->text, 0);
}

/* adopt_port gives the file of a version that named it by port its number: the
 * lowest, for it is the oldest. */
static void adopt_port(struct kea_spool_dir *d, const char *port)
{
	char from[KEA_SPOOL_NAME_MAX], to[KEA_SPOOL_NAME_MAX];
	struct stat st;

	snprintf(from, sizeof(from), PREFIX "%.20s" SUFFIX,
		 port[0] ? port : "0");
	own_name(d, 0, to);
	if (fstatat(d->fd, from, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
	    !S_ISREG(st.st_mode))
		return;
	if (renameat2(d->fd, from, d->fd, to, RENAME_NOREPLACE) == 0)
		say(d, "notice", "%s is this server's, now as %s", from, to);
	else
		say(d, "warning", "%s can't be renamed to %s: %s", from, to,
		    strerror(errno));
}

static void tell(struct kea_spool_dir *d, const struct name *n, void *arg)
{
	size_t *told = arg;
	struct kea_facts f;
	enum kea_owner_state owner = KEA_OWNER_UNKNOWN;
	char own[KEA_SPOOL_NAME_MAX];
	bool ours = strcmp(n->id, d->owner.id) == 0;

	if (n->temporary || (ours && n->whole))
		return;
	if (n->id[0] && !ours)
		owner = kea_owner_look(d->fd, n->id, &f);
	if (owner == KEA_OWNER_RUNS || ++*told > MAX_TOLD)
		return;
	own_name(d, d->next, own);
	if (!n->whole)
		say(d, "notice", "%s is left here, and is not taken in: remove "
		    "it when nobody needs it", n->text);
	else if (owner == KEA_OWNER_AWAY)
		say(d, "warning", "%s is left here: it belongs to another "
		    "server, which does not run (port %s, tls-port %s, "
		    "unixsocket %s, config file %s, dataset %s) and takes it "
		    "in when it starts; if it is this one's, rename it to %s "
		    "and load again",
		    n->text, f.text[KEA_FACT_PORT], f.text[KEA_FACT_TLS_PORT],
		    f.text[KEA_FACT_SOCKET], f.text[KEA_FACT_CONFIG],
		    f.text[KEA_FACT_DATASET], own);
	else
		say(d, "warning", "%s is left here, and no server is known "
		    "to take it in; if it is this one's, rename it to %s and "
		    "load again", n->text, own);
}

struct kea_spool_dir *kea_spool_dir_open(const struct kea_facts *mine,
					 kea_spool_say *say_it)
{
	struct kea_spool_dir *d = kea_queue_scratch(sizeof(*d));
	size_t told = 0;

	*d = (struct kea_spool_dir){ .say = say_it, .next = 1 };
	d->fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->fd < 0) /* a dir that may be written, but not read */
		d->fd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	kea_owner_claim(&d->owner, d->fd, mine);
	if (d->owner.error)
		say(d, "warning", "can't write " PREFIX "%s.owner in the dir: "
		    "%s; what SHUTDOWN spools may be lost, or not be found "
		    "again by the next load", d->owner.id,
		    strerror(d->owner.error));
	adopt_port(d, mine->text[KEA_FACT_PORT]);
	for_each(d, clear, NULL);
	for_each(d, count_up, NULL);
	if (d->owner.changed && d->next > 1)
		say(d, "warning", PREFIX "%s.*" SUFFIX " is taken for this "
		    "server's, which looked otherwise at its last load: port "
		    "%s, tls-port %s, unixsocket %s, config file %s, dataset %s",
		    d->owner.id, d->owner.was.text[KEA_FACT_PORT],
		    d->owner.was.text[KEA_FACT_TLS_PORT],
		    d->owner.was.text[KEA_FACT_SOCKET],
		    d->owner.was.text[KEA_FACT_CONFIG],
		    d->owner.was.text[KEA_FACT_DATASET]);
	for_each(d, tell, &told);
	if (told > MAX_TOLD)
		say(d, "warning", "%llu more spool files are left in the dir",
		    (unsigned long long)(told - MAX_TOLD));
	return d;
}

void kea_spool_dir_close(struct kea_spool_dir *d)
{
	while (d) {
		struct kea_spool_dir *before = d->before;

		kea_owner_release(&d->owner);
		if (d->fd >= 0)
			close(d->fd);
		free(d->held);
		free(d);
		d = before;
	}
}

bool kea_spool_dir_is_here(const struct kea_spool_dir *d)
{
	struct stat here, there;

	return stat(".", &here) == 0 && fstat(d->fd, &there) == 0 &&
	       here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

/* ---- taking in ---------------------------------------------------------- */

struct numbers {
	uint64_t *of;
	size_t count;
};

static void collect(struct kea_spool_dir *d, const struct name *n, void *arg)
{
	struct numbers *all = arg;
	uint64_t *more;

	if (!n->whole || strcmp(n->id, d->owner.id) != 0)
		return;
	more = kea_queue_scratch((all->count + 1) * sizeof(*more));
	if (all->count > 0)
		memcpy(more, all->of, all->count * sizeof(*more));
	free(all->of);
	more[all->count++] = n->number;
	all->of = more;
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void hold(struct kea_spool_dir *d, uint64_t number, bool damaged)
{
	struct kea_spool_held *more =
		kea_queue_scratch((d->held_count + 1) * sizeof(*more));

	if (d->held_count > 0)
		memcpy(more, d->held, d->held_count * sizeof(*more));
	free(d->held);
	more[d->held_count++] = (struct kea_spool_held){ number, damaged };
	d->held = more;
}

static void take_in(struct kea_spool_dir *d, uint64_t number,
		    struct kea_queue *q)
{
	char name[KEA_SPOOL_NAME_MAX];
	unsigned long long n;
	uint64_t count;
	enum kea_spool_state state;

	own_name(d, number, name);
	state = kea_spool_read(d->fd, name, q, &count);
	n = count;
	switch (state) {
	case KEA_SPOOL_NONE:
		return;
	case KEA_SPOOL_WHOLE:
		hold(d, number, false);
		KEA_FAULT("spool-taken-in");
		say(d, "notice", "%llu events taken in from %s", n, name);
		return;
	case KEA_SPOOL_DAMAGED:
		hold(d, number, true);
		say(d, "warning", "%s is damaged: %llu events taken in, the "
		    "file is kept, as %s.damaged once they are delivered",
		    name, n, name);
		return;
	case KEA_SPOOL_IRREGULAR:
		say(d, "warning", "%s is left as it is: not a regular file",
		    name);
		return;
	case KEA_SPOOL_UNREADABLE:
		say(d, "warning", "can't read %s: %s; %llu events taken in, "
		    "the next load tries again", name, strerror(errno), n);
	}
}

void kea_spool_dir_take_in(struct kea_spool_dir *d, struct kea_queue *q)
{
	struct numbers all = { 0 };

	for_each(d, collect, &all);
	if (all.count > 1)
		qsort(all.of, all.count, sizeof(*all.of), by_number);
	for (size_t i = 0; i < all.count; i++)
		take_in(d, all.of[i], q);
	free(all.of);
}

/* ---- writing ------------------------------------------------------------ */

bool kea_spool_dir_begin(struct kea_spool_dir *d, struct kea_spool *s)
{
	char name[KEA_SPOOL_NAME_MAX];
	struct stat st;
	uint64_t first = d->next;

	/* Where something lies in the way, a folder say, there are other
	 * numbers. */
	for (int i = 0; i < MAX_TRIES; i++, d->next++) {
		own_name(d, d->next, name);
		if (fstatat(d->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
			errno = EEXIST;
			continue;
		}
		if (kea_spool_begin(s, d->fd, name))
			return true;
		if (errno != EISDIR && errno != EEXIST && errno != EPERM)
			break;
	}
	d->next = first;
	return false;
}

enum kea_spool_written kea_spool_dir_commit(struct kea_spool_dir *d,
					    struct kea_spool *s)
{
	uint64_t number = d->next;
	enum kea_spool_written done = kea_spool_commit(s);

	if (done == KEA_SPOOL_FAILED)
		return done;
	d->next++;
	hold(d, number, false);
	return done;
}

size_t kea_spool_dir_held(const struct kea_spool_dir *d)
{
	size_t n = 0;

	for (; d; d = d->before)
		n += d->held_count;
	return n;
}

static void set_aside(struct kea_spool_dir *d, const char *name)
{
	char to[KEA_SPOOL_NAME_MAX + 32];

	snprintf(to, sizeof(to), "%s.damaged", name);
	for (int i = 2; i <= MAX_TRIES; i++) {
		if (renameat2(d->fd, name, d->fd, to, RENAME_NOREPLACE) == 0)
			return;
		if (errno != EEXIST)
			break;
		snprintf(to, sizeof(to), "%s.damaged.%d", name, i);
	}
	say(d, "warning", "%s can't be renamed to %s: %s; the next load takes "
	    "it in again", name, to, strerror(errno));
}

static void drop(struct kea_spool_dir *d, const struct kea_spool_held *h)
{
	char name[KEA_SPOOL_NAME_MAX];

	own_name(d, h->number, name);
	if (h->damaged)
		set_aside(d, name);
	else if (unlinkat(d->fd, name, 0) != 0 && errno != ENOENT)
		say(d, "warning", "can't remove %s: %s; the next load takes it "
		    "in again", name, strerror(errno));
}

void kea_spool_dir_drop(struct kea_spool_dir *d, size_t keep)
{
	size_t n = d->held_count > keep ? d->held_count - keep : 0;

	if (d->before) {
		kea_spool_dir_drop(d->before,
				   keep > d->held_count ? keep - d->held_count :
							  0);
		if (kea_spool_dir_held(d->before) == 0) {
			kea_spool_dir_close(d->before);
			d->before = NULL;
		}
	}
	for (size_t i = 0; i < n; i++)
		drop(d, &d->held[i]);
	d->held_count -= n;
	if (n > 0 && d->held_count > 0)
		memmove(d->held, d->held + n,
			d->held_count * sizeof(*d->held));
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * spooldir_test.c: each server of a dir finds its own spool files, whatever has
 * changed of its name, and no other one's; what it can't read it leaves; what
 * it leaves it tells of.
 */
#include "../spooldir.h"
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char said[65536];

/* In the place of the C library's, which would take minutes here: what is
 * durable is for a test with a real server to show. */
int fsync(int fd)
{
	(void)fd;
	return 0;
}

static void note(const char *level, const char *text)
{
	strcat(strcat(strcat(said, level), ": "), text);
	strcat(said, "\n");
}

static bool told(const char *what)
{
	return strstr(said, what) != NULL;
}

static struct kea_facts server(const char *config, const char *dataset,
			       const char *socket, const char *port)
{
	struct kea_facts f = { 0 };

	kea_facts_set(&f, KEA_FACT_CONFIG, config);
	kea_facts_set(&f, KEA_FACT_DATASET, dataset);
	kea_facts_set(&f, KEA_FACT_SOCKET, socket);
	kea_facts_set(&f, KEA_FACT_PORT, port);
	kea_facts_set(&f, KEA_FACT_TLS_PORT, "0");
	return f;
}

static struct kea_facts with(struct kea_facts f, enum kea_fact which,
			     const char *text)
{
	kea_facts_set(&f, which, text);
	return f;
}

static void clean(void)
{
	glob_t found;

	if (glob("key_evt_amqp.*", 0, NULL, &found) == 0) {
		for (size_t i = 0; i < found.gl_pathc; i++)
			CHECK(remove(found.gl_pathv[i]) == 0);
		globfree(&found);
	}
	said[0] = 0;
}

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

static void visit(void *s, const struct kea_run *run)
{
	kea_spool_add(s, run);
}

/* spool writes events from to to into the next file. */
static void spool(struct kea_spool_dir *d, uint64_t from, uint64_t to)
{
	struct kea_queue q = { 0 };
	struct kea_spool s;

	for (uint64_t i = from; i <= to; i++)
		add(&q, i);
	CHECK(kea_spool_dir_begin(d, &s));
	kea_queue_visit(&q, visit, &s);
	CHECK(kea_spool_dir_commit(d, &s) == KEA_SPOOL_WRITTEN);
	kea_queue_free(&q);
}

/* takes checks that the server has the events first to last, and none if last
 * is 0. */
static void takes(struct kea_spool_dir *d, uint64_t first, uint64_t last)
{
	struct kea_queue q = { 0 };
	struct kea_run run;
	uint64_t next = first, end = last ? last + 1 : first;
	size_t len;

	kea_spool_dir_take_in(d, &q);
	while (kea_queue_peek(&q, 1, SIZE_MAX, &run)) {
		CHECK(kea_record_at(run.start, &len)->seq == next++);
		kea_queue_take(&q, &run);
		kea_run_release(&q, &run, 1);
	}
	CHECK(next == end);
	kea_queue_free(&q);
}

static struct kea_spool_dir *load(struct kea_facts f)
{
	said[0] = 0;
	return kea_spool_dir_open(&f, note);
}

/* A load, a spool file of n events, and the end. */
static void leaves(struct kea_facts f, uint64_t n)
{
	struct kea_spool_dir *d = load(f);

	spool(d, 1, n);
	kea_spool_dir_close(d);
}

/* in_process runs as another server while this one goes on. */
static void in_process(void (*what)(void))
{
	int status;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		what();
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

static void test_changes(void)
{
	struct kea_facts base = server("/etc/a.conf", "dump.rdb", "/run/a",
				       "6379");
	const struct {
		struct kea_facts was, is;
		bool same;
	} row[] = {
		{ base, base, true },
		{ base, with(base, KEA_FACT_PORT, "7000"), true },
		{ base, with(base, KEA_FACT_PORT, "0"), true },
		{ base, with(base, KEA_FACT_SOCKET, ""), true },
		{ base, with(base, KEA_FACT_TLS_PORT, "6379"), true },
		{ base, with(base, KEA_FACT_CONFIG, "/etc/b.conf"), true },
		{ base, with(base, KEA_FACT_CONFIG, ""), true },
		{ base, with(base, KEA_FACT_DATASET, "b.rdb"), true },
		{ base, with(base, KEA_FACT_NODE, "n1"), true },
		{ with(base, KEA_FACT_NODE, "n0"),
		  with(base, KEA_FACT_NODE, "n1"), true },
		/* All except the node's id. */
		{ with(base, KEA_FACT_NODE, "n0"),
		  with(server("", "b", "", "1"), KEA_FACT_NODE, "n0"), true },
		/* From clear text to TLS on the same port. */
		{ server("", "d", "", "6379"),
		  with(server("", "d", "", "0"), KEA_FACT_TLS_PORT, "6379"),
		  true },
		{ server("/c", "d", "/run/a", "0"),
		  server("/c", "d", "/run/b", "0"), true },
		/* No file, no port: only a new socket. */
		{ server("", "d", "/run/a", "0"), server("", "d", "/run/b", "0"),
		  true },
		/* Other servers. */
		{ base, server("/etc/b.conf", "dump.rdb", "/run/b", "0"), false },
		{ base, server("/etc/b.conf", "b.rdb", "", "6380"), false },
		{ base, server("/etc/a.conf", "b.rdb", "", "6380"), false },
		{ server("", "dump-1", "", "1"), server("", "dump-2", "", "2"),
		  false },
		{ with(server("", "a", "", "1"), KEA_FACT_NODE, "n1"),
		  with(server("", "b", "", "2"), KEA_FACT_NODE, "n2"), false },
		{ server("", "", "", "1"), server("", "", "", "2"), false },
	};

	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		struct kea_spool_dir *d;

		clean();
		leaves(row[i].was, 9);
		d = load(row[i].is);
		if ((kea_owner_judge(&row[i].is, &row[i].was) >= 0) !=
		    row[i].same)
			fprintf(stderr, "row %zu\n", i);
		takes(d, 1, row[i].same ? 9 : 0);
		CHECK(told("looked otherwise at its last load") ==
		      (row[i].same && i > 0));
		CHECK(told("is left here") == !row[i].same);
		kea_spool_dir_close(d);
	}
}

static void second_server(void)
{
	struct kea_spool_dir *d = load(server("", "d", "/run/b", "0"));

	takes(d, 1, 0);
	CHECK(!told("is left here")); /* the other one runs */
	spool(d, 101, 105);
	kea_spool_dir_close(d);
}

/* Two servers with port 0 in one dir, alike except for their sockets. */
static void test_two_servers(void)
{
	struct kea_facts a = server("", "d", "/run/a", "0");
	struct kea_facts b = server("", "d", "/run/b", "0");
	struct kea_spool_dir *d, *e;

	clean();
	d = load(a);
	spool(d, 1, 5);
	in_process(second_server);
	kea_spool_dir_close(d);

	e = load(b);
	CHECK(told("is left here") && told("unixsocket /run/a"));
	takes(e, 101, 105);
	kea_spool_dir_drop(e, 0);
	kea_spool_dir_close(e);
	/* It could be either: so it is neither. */
	leaves(b, 1);
	e = load(with(a, KEA_FACT_SOCKET, "/run/c"));
	takes(e, 1, 0);
	kea_spool_dir_close(e);
	d = load(a);
	takes(d, 1, 5);
	kea_spool_dir_close(d);
}

static void at_the_same_time(void)
{
	for (int i = 0; i < 10; i++) {
		struct kea_spool_dir *d = load(server("", "d", "/run/a", "0"));

		CHECK(d->owner.error == 0);
		kea_spool_dir_close(d);
	}
}

/* Loads at the same time never get one id. */
static void test_crowd(void)
{
	pid_t pid[4];
	int status;

	clean();
	for (int i = 0; i < 4; i++) {
		pid[i] = fork();
		CHECK(pid[i] >= 0);
		if (pid[i] == 0) {
			at_the_same_time();
			_exit(0);
		}
	}
	for (int i = 0; i < 4; i++)
		CHECK(waitpid(pid[i], &status, 0) == pid[i] && status == 0);
}

static const char *find(const char *pattern)
{
	static char name[256];
	glob_t found;

	name[0] = 0;
	if (glob(pattern, 0, NULL, &found) == 0) {
		snprintf(name, sizeof(name), "%s", found.gl_pathv[0]);
		globfree(&found);
	}
	return name;
}

static void test_order_and_drop(void)
{
	struct kea_facts f = server("/c", "d", "", "1");
	struct kea_spool_dir *d;
	char name[256], to[300];
	uint64_t at = 1;

	clean();
	d = load(f);
	for (int i = 0; i < 12; i++, at += 3) /* 10 is behind 9 */
		spool(d, at, at + 2);
	kea_spool_dir_close(d);
	d = load(f);
	takes(d, 1, 36);
	CHECK(kea_spool_dir_held(d) == 12);
	kea_spool_dir_drop(d, 2);
	CHECK(kea_spool_dir_held(d) == 2);
	kea_spool_dir_close(d);
	d = load(f);
	takes(d, 31, 36);
	kea_spool_dir_drop(d, 0);
	CHECK(!find("*.spool")[0]);

	/* A damaged one is kept, and does not replace another. */
	for (int i = 0; i < 3; i++) {
		spool(d, 1, 4);
		strcpy(name, find("*.spool"));
		CHECK(truncate(name, 100) == 0);
		kea_spool_dir_close(d);
		d = load(f);
		takes(d, 1, 1);
		CHECK(told("is damaged: 1 events"));
		CHECK(access(name, F_OK) == 0);
		kea_spool_dir_drop(d, 0);
		snprintf(to, sizeof(to), "%s.damaged", name);
		CHECK(access(name, F_OK) != 0 && access(to, F_OK) == 0);
		CHECK(rename(to, name) == 0);
		CHECK(link(name, to) == 0);
		kea_spool_dir_close(d);
		d = load(f);
		takes(d, 1, 1);
		kea_spool_dir_drop(d, 0);
		snprintf(to, sizeof(to), "%s.damaged.2", name);
		CHECK(access(to, F_OK) == 0);
	}
	kea_spool_dir_close(d);
	d = load(f);
	CHECK(told("is left here, and is not taken in"));
	kea_spool_dir_close(d);
}

/* What can't be read is left, and files behind it are read and written. */
static void test_unreadable(void)
{
	struct kea_facts f = server("/c", "d", "", "1");
	struct kea_spool_dir *d;
	char name[256];
	struct stat st;

	clean();
	leaves(f, 3);
	strcpy(name, find("*.spool"));
	CHECK(unlink(name) == 0 && mkfifo(name, 0600) == 0);
	d = load(f);
	takes(d, 1, 0);
	CHECK(told("not a regular file"));
	spool(d, 1, 7);
	kea_spool_dir_drop(d, 1);
	kea_spool_dir_close(d);
	d = load(f);
	takes(d, 1, 7);
	kea_spool_dir_drop(d, 0);
	kea_spool_dir_close(d);
	CHECK(lstat(name, &st) == 0 && S_ISFIFO(st.st_mode));
	/* A folder in the way of the next file, and of what is written. */
	d = load(f);
	snprintf(name, sizeof(name), "key_evt_amqp.%s.%d.spool", d->owner.id,
		 (int)d->next);
	CHECK(mkdir(name, 0700) == 0);
	snprintf(name, sizeof(name), "key_evt_amqp.%s.%d.spool.new",
		 d->owner.id, (int)d->next + 1);
	CHECK(mkdir(name, 0700) == 0);
	spool(d, 1, 2);
	kea_spool_dir_close(d);
	d = load(f);
	takes(d, 1, 2);
	kea_spool_dir_close(d);
}

static void test_names_by_port(void)
{
	struct kea_facts f = server("/c", "d", "", "6379");
	struct kea_spool_dir *d;

	clean();
	leaves(f, 3);
	CHECK(rename(find("*.1.spool"), "key_evt_amqp.6379.spool") == 0);
	d = load(f);
	spool(d, 4, 6);
	kea_spool_dir_close(d);
	d = load(f);
	takes(d, 1, 6);
	kea_spool_dir_drop(d, 0);
	kea_spool_dir_close(d);
	leaves(f, 3);
	CHECK(rename(find("*.1.spool"), "key_evt_amqp.6380.spool") == 0);
	d = load(f);
	CHECK(told("key_evt_amqp.6380.spool is left here, and no server"));
	takes(d, 1, 0);
	kea_spool_dir_close(d);
	CHECK(access("key_evt_amqp.6380.spool", F_OK) == 0);
}

/* An owner file that is something else, or can't be written. */
static void test_owner_files(void)
{
	struct kea_facts f = server("/c", "d", "", "1");
	struct kea_spool_dir *d;

	clean();
	CHECK(mkfifo("key_evt_amqp.0123456789abcdef.owner", 0600) == 0);
	CHECK(symlink("/dev/zero", "key_evt_amqp.1123456789abcdef.owner") == 0);
	CHECK(close(open("key_evt_amqp.2123456789abcdef.owner",
			 O_WRONLY | O_CREAT, 0600)) == 0);
	CHECK(truncate("key_evt_amqp.2123456789abcdef.owner", 999) == 0);
	d = load(f);
	CHECK(d->owner.error == 0 && strcmp(d->owner.id, "0123456789abcdef") &&
	      strcmp(d->owner.id, "1123456789abcdef") &&
	      strcmp(d->owner.id, "2123456789abcdef"));
	kea_spool_dir_close(d);
}

static void test_dir_changes(void)
{
	struct kea_facts f = server("/c", "d", "", "1");
	struct kea_spool_dir *d, *e;

	clean();
	leaves(f, 3);
	d = load(f);
	takes(d, 1, 3);
	CHECK(kea_spool_dir_is_here(d));
	CHECK(mkdir("key_evt_amqp.elsewhere", 0700) == 0);
	CHECK(chdir("key_evt_amqp.elsewhere") == 0);
	CHECK(!kea_spool_dir_is_here(d));
	e = load(f);
	e->before = d;
	spool(e, 1, 3);
	CHECK(kea_spool_dir_held(e) == 2);
	kea_spool_dir_drop(e, 1);
	CHECK(kea_spool_dir_held(e) == 1 && !e->before);
	CHECK(!find("../*.spool")[0] && find("*.spool")[0]);
	kea_spool_dir_close(e);
	clean();
	CHECK(chdir("..") == 0);
}

int main(void)
{
	char folder[] = "/tmp/spooldir_test.XXXXXX";

	CHECK(mkdtemp(folder) && chdir(folder) == 0);
	test_changes();
	test_two_servers();
	test_crowd();
	test_order_and_drop();
	test_unreadable();
	test_names_by_port();
	test_owner_files();
	test_dir_changes();
	clean();
	CHECK(kea_queue_allocated() == 0);
	CHECK(chdir("/") == 0 && rmdir(folder) == 0);
	puts("spooldir_test: ok");
	return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crash.c: what Redis's crash report needs of a process that Go lives in. Its
 * memory test, at the report's end, overwrites and restores all anonymous
 * memory, and four things stand in its way:
 *
 *  1. The stack. Go makes its signal handler run on a stack of its own, 32 KiB
 *     of anonymous memory, and calls Redis's handler there; the memory test
 *     wants a megabyte, and would overwrite the stack that it runs on. Go
 *     takes a thread's own signal stack where there is one: so the main thread
 *     gets one, large enough, and named so that the test passes it over.
 *  2. The threads. Redis ends its own before the test; Go's would run on in
 *     memory that is full of patterns. They are stopped for good when the
 *     report asks for our section.
 *  3. The C library's restartable sequences (glibc 2.35 and newer), not a
 *     matter of Go's: the kernel kills a thread that it preempts while a
 *     pattern is where the thread's rseq area was. Measured on 7.0.15 without
 *     any module: one report of ten lacks its end. They are turned off for the
 *     thread that reports.
 *  4. Guard pages within mappings (glibc 2.42 and newer, on Linux 6.13 and
 *     newer). A thread's stack is one mapping with its guard, which only the
 *     page table shows: the test takes the whole of it for memory. The guards
 *     are removed; they protect nothing any more.
 *
 * Nothing here runs in normal operation, except the stack's set-up at load.
 */
#include "crash.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

/* Of which Redis's handler and its memory test take a little over 1 MiB; what
 * is not touched costs nothing. */
#define STACK_BYTES ((size_t)4 << 20)
/* The memory test leaves out mappings with "stack" in their name. */
#define STACK_NAME "key_evt_amqp signal stack"

#define MAX_THREADS 512
#define ROUNDS 50
#define ROUND_NS (2 * 1000 * 1000)

/* This library's code, Go's included. */
static uintptr_t code_start, code_end;

/* The threads that stand still; 0: a free place. */
static _Atomic int stopped[MAX_THREADS];

static int find_code(struct dl_phdr_info *info, size_t size, void *unused)
{
	uintptr_t here = (uintptr_t)find_code;

	(void)size;
	(void)unused;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];
		uintptr_t start = info->dlpi_addr + p->p_vaddr;

		if (p->p_type != PT_LOAD || !(p->p_flags & PF_X) ||
		    here < start || here >= start + p->p_memsz)
			continue;
		code_start = start;
		code_end = start + p->p_memsz;
		return 1;
	}
	return 0;
}

void kea_crash_prepare(RedisModuleCtx *ctx)
{
	stack_t stack = { 0 };
	void *memory = MAP_FAILED;
	int fd;

	dl_iterate_phdr(find_code, NULL);
	/* One from another module, or ours from an earlier load: Go holds on
	 * to it as long as the thread lives, so it is never taken down. */
	if (sigaltstack(NULL, &stack) == 0 && !(stack.ss_flags & SS_DISABLE))
		return;
	/* Private, so that a forked child has its own. */
	fd = memfd_create(STACK_NAME, MFD_CLOEXEC);
	if (fd >= 0 && ftruncate(fd, (off_t)STACK_BYTES) == 0)
		memory = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_NORESERVE, fd, 0);
	if (fd >= 0)
		close(fd);
	stack = (stack_t){ .ss_sp = memory, .ss_size = STACK_BYTES };
	if (memory != MAP_FAILED && sigaltstack(&stack, NULL) == 0)
		return;
	RedisModule_Log(ctx, "warning",
			"no signal stack: a crash report would lack its end");
	if (memory != MAP_FAILED)
		munmap(memory, STACK_BYTES);
}

/*
 * In foreign code (Redis's, the C library's) a thread may hold a lock that the
 * rest of the report wants, malloc's or that of the time zone: it may run on,
 * and is asked again. Our own code and Go's hold none of these.
 */
static bool in_our_code(const ucontext_t *at)
{
#if defined(__x86_64__)
	uintptr_t pc = (uintptr_t)at->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
	uintptr_t pc = (uintptr_t)at->uc_mcontext.pc;
#else
#error "which register is the program counter?"
#endif
	return pc >= code_start && pc < code_end;
}

/* Runs on the thread that is to stand still; every signal is blocked. */
static void stand_still(int sig, siginfo_t *info, void *context)
{
	int saved = errno;
	sigset_t none;

	(void)sig;
	(void)info;
	if (!in_our_code(context)) {
		errno = saved;
		return;
	}
	for (int i = 0; i < MAX_THREADS; i++) {
		int place_free = 0;

		if (!atomic_compare_exchange_strong_explicit(
			    &stopped[i], &place_free,
			    (int)syscall(SYS_gettid), memory_order_acq_rel,
			    memory_order_relaxed))
			continue;
		/* From here on in the kernel, where patterns in memory can do
		 * no harm. */
		sigfillset(&none);
		for (;;)
			sigsuspend(&none);
	}
	errno = saved;
}

static bool stands(int thread)
{
	for (int i = 0; i < MAX_THREADS; i++) {
		/* Pairs with the exchange in stand_still. */
		int other = atomic_load_explicit(&stopped[i],
						 memory_order_acquire);

		if (other == thread)
			return true;
		if (other == 0)
			return false;
	}
	return true; /* no room for it */
}

/* A signal that nobody uses, 0 when there is none. */
static int free_signal(void)
{
	struct sigaction now;

	for (int sig = SIGRTMAX; sig >= SIGRTMIN; sig--)
		if (sigaction(sig, NULL, &now) == 0 &&
		    now.sa_handler == SIG_DFL)
			return sig;
	return 0;
}

struct entry { /* of getdents64(2) */
	uint64_t inode;
	int64_t next;
	uint16_t len;
	uint8_t type;
	char name[];
};

/* Asks every thread but this one and the main one (Redis cancels that, when it
 * is not the one that crashed); returns how many do not stand yet. */
static int ask_all(int tasks, int sig)
{
	int self = (int)syscall(SYS_gettid), process = getpid(), running = 0;
	_Alignas(8) char entries[2048];
	long n;

	if (lseek(tasks, 0, SEEK_SET) < 0)
		return 0;
	while ((n = syscall(SYS_getdents64, tasks, entries, sizeof(entries))) >
	       0) {
		for (long at = 0; at < n;) {
			const struct entry *e = (void *)(entries + at);
			int thread = 0;

			for (const char *c = e->name; *c >= '0' && *c <= '9';
			     c++)
				thread = thread * 10 + (*c - '0');
			at += e->len;
			if (thread == 0 || thread == self ||
			    thread == process || stands(thread))
				continue;
			syscall(SYS_tgkill, process, thread, sig);
			running++;
		}
	}
	return running;
}

static void stop_threads(void)
{
	struct timespec pause = { .tv_nsec = ROUND_NS };
	struct sigaction act = { .sa_sigaction = stand_still,
				 .sa_flags = SA_SIGINFO | SA_ONSTACK |
					     SA_RESTART };
	int sig = free_signal(), tasks;

	if (sig == 0 || code_start == 0)
		return;
	sigfillset(&act.sa_mask);
	tasks = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (tasks < 0 || sigaction(sig, &act, NULL) != 0)
		return;
	/* Redis's own threads never stand, so all rounds are run: a Go thread
	 * may have been in foreign code, or may just have been started. */
	for (int i = 0; i < ROUNDS && ask_all(tasks, sig) > 0; i++)
		nanosleep(&pause, NULL);
	close(tasks);
}

/* Since glibc 2.35; NULL where they are not known. */
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));

#if defined(__x86_64__)
#define RSEQ_SIGNATURE 0x53053053
#else
#define RSEQ_SIGNATURE 0xd428bc00
#endif
#define RSEQ_UNREGISTER 1
#define RSEQ_BYTES 32 /* what the C library registers, at the least */

static char *thread_pointer(void)
{
#if defined(__x86_64__)
	char *p; /* GCC has a builtin for it since 11 only */

	__asm__("mov %%fs:0, %0" : "=r"(p));
	return p;
#else
	return __builtin_thread_pointer();
#endif
}

static void leave_rseq(void)
{
	char *area;

	if (!&__rseq_offset || !&__rseq_size || __rseq_size == 0)
		return;
	area = thread_pointer() + __rseq_offset;
	/* The kernel compares the length; one of the two is right. */
	if (syscall(SYS_rseq, area, RSEQ_BYTES, RSEQ_UNREGISTER,
		    RSEQ_SIGNATURE) != 0)
		syscall(SYS_rseq, area, __rseq_size, RSEQ_UNREGISTER,
			RSEQ_SIGNATURE);
}

#ifndef MADV_GUARD_REMOVE
#define MADV_GUARD_REMOVE 103
#endif

/* Where a reader of /proc/self/maps is in a line. */
enum field { START, END, RIGHTS, REST };

struct mapping {
	enum field field;
	uintptr_t start, end;
	char rights[2];
	size_t n; /* of rights */
};

static uintptr_t add_digit(uintptr_t number, char c)
{
	return number << 4 | (uintptr_t)(c <= '9' ? c - '0' : c - 'a' + 10);
}

/* Takes in one more character; true when a mapping is known that can be read
 * and written. */
static bool next_char(struct mapping *m, char c)
{
	if (c == '\n') {
		*m = (struct mapping){ .field = START };
	} else if (m->field == START && c != '-') {
		m->start = add_digit(m->start, c);
	} else if (m->field == END && c != ' ') {
		m->end = add_digit(m->end, c);
	} else if (m->field == RIGHTS) {
		m->rights[m->n++] = c;
		if (m->n == 2) {
			m->field = REST;
			return m->rights[0] == 'r' && m->rights[1] == 'w';
		}
	} else if (m->field != REST) {
		m->field++;
	}
	return false;
}

static void remove_guards(void)
{
	struct mapping m = { .field = START };
	char text[2048];
	ssize_t n;
	int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);

	if (maps < 0)
		return;
	while ((n = read(maps, text, sizeof(text))) > 0)
		for (ssize_t i = 0; i < n; i++)
			/* Memory without guards stays as it is, and kernels
			 * that know none refuse. */
			if (next_char(&m, text[i]))
				madvise((void *)m.start, m.end - m.start,
					MADV_GUARD_REMOVE);
	close(maps);
}

void kea_crash_ready_for_memory_test(void)
{
	stop_threads();
	remove_guards();
	leave_rseq();
}

/* Allocation helpers; see base.h. */
#define _GNU_SOURCE
#include "base/base.h"

#include <stdarg.h>
#include <stdio.h>

/* Per-thread countdown of the test hook; not state of any machine. */
static __thread unsigned fail_in;

static void *must(void *p)
{
	if (!p) {
		static const char msg[] = "out of memory\n";

		fwrite(msg, 1, sizeof(msg) - 1, stderr);
		abort();
	}
	return p;
}

void *xalloc(size_t bytes)
{
	return must(calloc(1, bytes ? bytes : 1));
}

void *xalloc_n(size_t n, size_t bytes_each)
{
	return must(calloc(n ? n : 1, bytes_each ? bytes_each : 1));
}

void *xrealloc(void *p, size_t bytes)
{
	return must(realloc(p, bytes ? bytes : 1));
}

char *xstrdup(const char *s)
{
	return must(strdup(s));
}

char *xasprintf(const char *fmt, ...)
{
	va_list ap;
	char *s = NULL;

	va_start(ap, fmt);
	if (vasprintf(&s, fmt, ap) < 0)
		s = NULL;
	va_end(ap);
	return must(s);
}

void try_alloc_fail_nth(unsigned n)
{
	fail_in = n;
}

static bool alloc_fault(void)
{
	return fail_in && --fail_in == 0;
}

void *try_alloc(size_t bytes)
{
	if (unlikely(alloc_fault()))
		return NULL;
	return calloc(1, bytes ? bytes : 1);
}

void *try_alloc_aligned(size_t bytes, size_t align)
{
	void *p;

	if (align <= _Alignof(max_align_t))
		return try_alloc(bytes);
	assert(is_pow2(align));
	if (unlikely(alloc_fault()) || posix_memalign(&p, align, bytes ? bytes : 1))
		return NULL;
	return memset(p, 0, bytes);
}

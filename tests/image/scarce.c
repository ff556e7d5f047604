/* cowimg where memory is scarce: the Nth allocation whose size depends on images or
 * people fails (base.h: try_alloc), in any thread.
 *
 *   COWVM_SCARCE="N" or "N+"	the Nth, or that and all that follow
 *   COWVM_FAULT_COUNT=FILE	at the end, how many there were
 *
 * The linker lets all calls pass through here (--wrap, see the Makefile). */
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>

int cowimg_main(int argc, char **argv);
void *__real_try_alloc(size_t bytes);
void *__real_try_alloc_aligned(size_t bytes, size_t align);
void *__wrap_try_alloc(size_t bytes);
void *__wrap_try_alloc_aligned(size_t bytes, size_t align);

static u32 *counter(void)
{
	static u32 n; /* [atomic] */

	return &n;
}

static bool fails(void)
{
	const char *text = getenv("COWVM_SCARCE");
	u32 n = __atomic_add_fetch(counter(), 1, __ATOMIC_SEQ_CST), nth;

	if (!text)
		return false;
	nth = (u32)atoi(text);
	return n == nth || (n > nth && strchr(text, '+'));
}

void *__wrap_try_alloc(size_t bytes)
{
	return fails() ? NULL : __real_try_alloc(bytes);
}

void *__wrap_try_alloc_aligned(size_t bytes, size_t align)
{
	return fails() ? NULL : __real_try_alloc_aligned(bytes, align);
}

int main(int argc, char **argv)
{
	const char *name = getenv("COWVM_FAULT_COUNT");
	int status = cowimg_main(argc, argv);
	FILE *f = name ? fopen(name, "w") : NULL;

	if (f) {
		fprintf(f, "%u\n", *counter());
		fclose(f);
	}
	return status;
}

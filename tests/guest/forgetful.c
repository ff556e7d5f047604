/* cowvm that forgets a mark: what devices write to the page at the guest address in
 * COWVM_TEST_FORGET_MARK is not noted as dirty.  Snapshots taken with it are wrong, and
 * the test that compares memory byte for byte has to see it.
 *
 * The linker puts these in the place of what vmm/core/mem.h offers (--wrap, see the
 * Makefile); the program itself has no hook for it. */
#include "vmm/core/mem.h"

#include <string.h>

int __real_mem_write(struct mem *mem, u64 gpa, const void *buf, u64 bytes);
void __real_mem_mark_dirty(struct mem *mem, u64 gpa, u64 bytes);
void __real_mem_mark_dirty_iov(struct mem *mem, const struct iovec *iov, unsigned n, u64 bytes);
int __wrap_mem_write(struct mem *mem, u64 gpa, const void *buf, u64 bytes);
void __wrap_mem_mark_dirty(struct mem *mem, u64 gpa, u64 bytes);
void __wrap_mem_mark_dirty_iov(struct mem *mem, const struct iovec *iov, unsigned n, u64 bytes);

static bool is_forgotten(u64 gpa, u64 bytes)
{
	const char *text = getenv("COWVM_TEST_FORGET_MARK");
	u64 page = text ? strtoull(text, NULL, 16) : UINT64_MAX;

	return text && page + 4096 > gpa && page < gpa + bytes;
}

int __wrap_mem_write(struct mem *mem, u64 gpa, const void *buf, u64 bytes)
{
	void *to = is_forgotten(gpa, bytes) ? mem_ptr_rw(mem, gpa, bytes) : NULL;

	if (!to)
		return __real_mem_write(mem, gpa, buf, bytes);
	memcpy(to, buf, bytes);
	return 0;
}

void __wrap_mem_mark_dirty(struct mem *mem, u64 gpa, u64 bytes)
{
	if (!is_forgotten(gpa, bytes))
		__real_mem_mark_dirty(mem, gpa, bytes);
}

void __wrap_mem_mark_dirty_iov(struct mem *mem, const struct iovec *iov, unsigned n, u64 bytes)
{
	const char *text = getenv("COWVM_TEST_FORGET_MARK");
	const u8 *page = text ? mem_ptr_ro(mem, strtoull(text, NULL, 16), 4096) : NULL;

	for (unsigned i = 0; page && i < n; i++) {
		const u8 *start = iov[i].iov_base;

		if (page + 4096 > start && page < start + iov[i].iov_len)
			return;
	}
	__real_mem_mark_dirty_iov(mem, iov, n, bytes);
}

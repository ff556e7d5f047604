/* userfaultfd: being told of the first write to, or the first touch of, guest pages.
 *
 * userfaultfd(2), Documentation/admin-guide/mm/userfaultfd.rst.  A descriptor that
 * handles faults of the kernel too (KVM, io_uring) is needed: /dev/userfaultfd, else
 * the system call.  Faults are reported on a thread of this module, the one that
 * faulted waits until its page is protected no more, or there. */
#ifndef VMM_CORE_UFFD_H
#define VMM_CORE_UFFD_H

#include "base/base.h"
#include "base/error.h"

struct uffd;

enum uffd_mode { UFFD_WRITES = 1, UFFD_MISSING = 2 };

/* [uffd thread] `host` is the faulting page's address, `thread` its kernel id.  The
 * handler, or somebody later, calls uffd_protect(off), uffd_fill or uffd_fill_zero
 * for it. */
typedef void uffd_fn(void *arg, u8 *host, bool missing, u32 thread);

/* -ENOSYS or -EPERM with a reason when this host does not let us: then there is no
 * way but to stop the guest. */
int uffd_new(struct uffd **out, uffd_fn *fn, void *arg, struct error *err);
/* Ends the thread and lets everybody go on; protection is gone. */
void uffd_free(struct uffd *u);
/* Anonymous private memory, page aligned; modes: enum uffd_mode.  For UFFD_MISSING it must be
 * empty (MADV_DONTNEED). */
int uffd_add(struct uffd *u, void *host, u64 bytes, u32 modes);
int uffd_remove(struct uffd *u, void *host, u64 bytes);
/* Write-protect pages, touched before or not; or let writes through and those on
 * who waited.  [any thread] */
int uffd_protect(struct uffd *u, void *host, u64 bytes, bool on);
/* Put missing pages in place.  -EEXIST: (some of) them are there.  [any thread] */
int uffd_fill(struct uffd *u, void *host, const void *from, u64 bytes);
int uffd_fill_zero(struct uffd *u, void *host, u64 bytes);
/* Those who wait for these pages look again.  [any thread] */
int uffd_wake(struct uffd *u, void *host, u64 bytes);

#endif

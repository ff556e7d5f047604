/* A guest's page tables: what is mapped where, as its control registers say. */
#ifndef VMM_CORE_PAGING_H
#define VMM_CORE_PAGING_H

#include "base/base.h"

struct paging {
	u64 cr0, cr3, cr4, efer;
	/* Read guest-physical memory: 0, or negative when there is none. */
	int (*read)(void *arg, u64 gpa, void *buf, u64 bytes);
	void *arg;
};

struct paging_leaf {
	u64 gva, gpa, bytes; /* gva canonical */
	u64 entry;	     /* as it stands in the table */
	bool user, write;    /* what all levels allow */
};

bool paging_is_on(const struct paging *p);
/* Digits of an address: 8, or 16 with PAE and in long mode. */
unsigned paging_digits(const struct paging *p);
/* Every mapping in order of address, until fn says false.  False: there were too many
 * tables (they may lead into each other), or fn said so. */
bool paging_each(const struct paging *p, bool (*fn)(void *arg, const struct paging_leaf *leaf),
		 void *arg);

#endif

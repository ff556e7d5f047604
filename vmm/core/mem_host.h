/* Host memory behind a region of guest memory: anonymous, or of a file. */
#ifndef VMM_CORE_MEM_HOST_H
#define VMM_CORE_MEM_HOST_H

#include "vmm/core/mem.h"

struct mem_host {
	u8 *host;
	u64 bytes;
	int fd;		/* -1: anonymous */
	u64 page_bytes; /* what the host allocates and takes back at once */
};

/* Map place->bytes as backing says; NULL: plain anonymous memory. */
int mem_host_map(struct mem_host *h, const struct mem_place *place,
		 const struct mem_backing *backing, struct error *err);
void mem_host_unmap(struct mem_host *h);
/* Pages become zeros, their memory goes back; or -errno, and they are what they were. */
int mem_host_discard(const struct mem_host *h, u8 *host, u64 bytes);

#endif

/* A chain of qcow2 images in memory, known by fixed names. */
#ifndef TESTS_LIB_MEM_CHAIN_H
#define TESTS_LIB_MEM_CHAIN_H

#include "block/image.h"
#include "tests/lib/mem_image.h"

#define MEM_CHAIN_MOST 4

extern const char *const mem_chain_names[MEM_CHAIN_MOST];

/* What lies between an image and its disk; takes the file. */
struct mem_chain_filter {
	struct image *(*add)(struct image *file, u32 at, void *arg); /* NULL: nothing */
	void *arg;
};

/* An empty image at a place, over the one before it. */
void mem_chain_create(struct fiber *f, struct mem_disk *disks, u32 at, u32 cluster_bytes, u64 bytes,
		      const struct mem_chain_filter *filter);
/* One image alone. */
int mem_chain_open_one(struct fiber *f, struct mem_disk *disks, u32 at,
		       const struct mem_chain_filter *filter, const struct open_policy *policy,
		       struct image **out);
/* A chain as its headers name it; only the top may be written to. */
int mem_chain_open(struct fiber *f, struct mem_disk *disks, u32 top,
		   const struct mem_chain_filter *filter, struct image **out);
u32 mem_chain_place(const char *name);

#endif

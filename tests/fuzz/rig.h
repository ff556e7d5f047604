/* What the fuzz targets share: input taken apart, a loop that outlives the inputs,
 * images in memory.  Each target is a file fuzz_NAME.c with LLVMFuzzerTestOneInput. */
#ifndef TESTS_FUZZ_RIG_H
#define TESTS_FUZZ_RIG_H

#include "base/base.h"
#include "tests/lib/mem_image.h"

/* libFuzzer calls these. */
int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

/* An input, read from its start; zeros behind its end. */
struct input {
	const u8 *at;
	size_t left;
};
u8 input_u8(struct input *in);
u32 input_u16(struct input *in);
u32 input_u24(struct input *in); /* little-endian, as all */

/* Run fn as a fiber on the one loop. */
void rig_run(fiber_fn *fn, void *arg);
struct loop *rig_loop(void);

/* Make `to` a copy of `from` that may grow to `limit`. */
void rig_copy(struct mem_disk *to, const struct mem_disk *from, u64 limit);
/* Patches: a count, then for each where (24 bits, modulo the disk's size), how many
 * bytes (4 bits) and the bytes. */
void rig_patch(struct mem_disk *d, struct input *in);

#endif

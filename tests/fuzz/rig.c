/* What the fuzz targets share; see rig.h.  Thread: libFuzzer's only one. */
#include "tests/fuzz/rig.h"

#include "base/log.h"
#include "base/loop.h"

u8 input_u8(struct input *in)
{
	u8 x = in->left ? *in->at : 0;

	if (in->left) {
		in->at++;
		in->left--;
	}
	return x;
}

u32 input_u16(struct input *in)
{
	u32 low = input_u8(in);

	return low | (u32)input_u8(in) << 8;
}

u32 input_u24(struct input *in)
{
	u32 low = input_u16(in);

	return low | (u32)input_u8(in) << 16;
}

struct loop *rig_loop(void)
{
	static struct loop *loop; /* one for the life of the process */
	struct error err;

	if (!loop) {
		if (log_set_file("/dev/null", &err) < 0 ||
		    loop_new(&loop, "fuzz", LOOP_THREADS, &err) < 0)
			abort();
	}
	return loop;
}

void rig_run(fiber_fn *fn, void *arg)
{
	if (loop_run_fiber(rig_loop(), fn, arg) < 0)
		abort();
}

void rig_copy(struct mem_disk *to, const struct mem_disk *from, u64 limit)
{
	if (to->room < from->bytes) {
		to->data = xrealloc(to->data, from->bytes);
		to->room = from->bytes;
	}
	memcpy(to->data, from->data, from->bytes);
	memset(to->data + from->bytes, 0, to->room - from->bytes);
	to->bytes = from->bytes;
	to->limit = limit;
}

void rig_patch(struct mem_disk *d, struct input *in)
{
	for (u32 n = input_u8(in) % 32; n; n--) {
		u64 at = input_u24(in) % d->bytes;
		u32 bytes = input_u8(in) % 16 + 1;

		for (u32 i = 0; i < bytes && at + i < d->bytes; i++)
			d->data[at + i] = input_u8(in);
	}
}

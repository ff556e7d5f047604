/* See mem_chain.h. */
#include "tests/lib/mem_chain.h"

#include "tests/unit/backends.h"

#include "block/qcow2/qcow2.h"

const char *const mem_chain_names[MEM_CHAIN_MOST] = {"base", "middle", "top", "new"};

static struct image *file_at(struct fiber *f, struct mem_disk *disks, u32 at,
			     const struct mem_chain_filter *filter)
{
	struct image *file = mem_image_new(fiber_loop(f), &disks[at]);

	return filter->add ? filter->add(file, at, filter->arg) : file;
}

void mem_chain_create(struct fiber *f, struct mem_disk *disks, u32 at, u32 cluster_bytes, u64 bytes,
		      const struct mem_chain_filter *filter)
{
	struct qcow2_create_options opt = {.bytes = bytes,
					   .cluster_bytes = cluster_bytes,
					   .backing_file = at ? mem_chain_names[at - 1] : NULL,
					   .backing_format = at ? "qcow2" : NULL};
	struct image *file = file_at(f, disks, at, filter);
	struct error err = {0};

	assert_int_equal(qcow2_create(f, file, &opt, &err), 0);
	image_close(f, file);
}

int mem_chain_open_one(struct fiber *f, struct mem_disk *disks, u32 at,
		       const struct mem_chain_filter *filter, const struct open_policy *policy,
		       struct image **out)
{
	struct error err = {0};
	int ret = image_open_over(f, out, "qcow2", file_at(f, disks, at, filter), policy, &err);

	if (ret < 0) {
		print_message("%s: %s\n", mem_chain_names[at], err.text);
		return ret;
	}
	free((*out)->name);
	(*out)->name = xstrdup(mem_chain_names[at]);
	return 0;
}

u32 mem_chain_place(const char *name)
{
	u32 at = 0;

	while (at < MEM_CHAIN_MOST && strcmp(mem_chain_names[at], name))
		at++;
	assert_true(at < MEM_CHAIN_MOST);
	return at;
}

int mem_chain_open(struct fiber *f, struct mem_disk *disks, u32 top,
		   const struct mem_chain_filter *filter, struct image **out)
{
	const struct open_policy policy = {.writable = true};
	struct image *img;
	int ret = mem_chain_open_one(f, disks, top, filter, &policy, out);

	for (img = *out; ret == 0 && img->backing_name; img = img->backing) {
		u32 at = mem_chain_place(img->backing_name);

		ret = mem_chain_open_one(f, disks, at, filter, &policy, &img->backing);
		if (ret < 0) {
			img->backing = NULL;
			image_close(f, *out);
			break;
		}
		img->backing->writable = false;
	}
	return ret;
}

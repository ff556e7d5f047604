/* `info block` and `info blockstats`. */
#include "block/blk_control.h"
#include "devices/device.h"
#include "devices/ide/ide.h"
#include "vmm/vm.h"

#include <errno.h>

static void print_limits(const struct drive *d, struct printer *p)
{
	struct throttle_limits l;
	AUTO_FREE char *group = blk_get_limits(d->blk, &l);

	if (!group)
		return;
	print_to(p, "    I/O throttling:  ");
	for (unsigned i = 0; i < 2; i++) {
		const struct throttle_limit *of = i ? l.iops : l.bps;
		const char *name = i ? "iops" : "bps";

		print_to(p, " %s=%llu %s_rd=%llu %s_wr=%llu", name, (unsigned long long)of[0].avg,
			 name, (unsigned long long)of[1].avg, name, (unsigned long long)of[2].avg);
		print_to(p, " %s_max=%llu %s_rd_max=%llu %s_wr_max=%llu", name,
			 (unsigned long long)of[0].max, name, (unsigned long long)of[1].max, name,
			 (unsigned long long)of[2].max);
	}
	print_to(p, " iops_size=%llu group=%s\n", (unsigned long long)l.iops_size, group);
}

static void print_drive(const struct drive *d, const struct blk_info *info, bool first,
			struct printer *p)
{
	const char *id = d->config->id;
	bool open, locked;

	if (!first)
		print_to(p, "\n");
	if (info->has_medium)
		print_to(p, "%s (%s): %s (%s%s%s)\n", id, info->node, info->file, info->format,
			 info->readonly ? ", read-only" : "", info->encrypted ? ", encrypted" : "");
	else
		print_to(p, "%s: [not inserted]\n", id);
	if (d->device)
		print_to(p, "    Attached to:      %s\n", d->device->id);
	if (d->device && ide_cd_tray(d->device, &open, &locked))
		print_to(p, "    Removable device: %slocked, tray %s\n", locked ? "" : "not ",
			 open ? "open" : "closed");
	if (info->has_medium)
		print_to(p, "    Cache mode:       %s\n", info->cache);
	if (info->locked)
		print_to(p, "    Locked:           %s (no passphrase yet)\n", info->locked);
	if (info->has_medium && info->backing_file)
		print_to(p, "    Backing file:     %s (chain depth: %u)\n", info->backing_file,
			 info->backing_depth);
	if (info->has_medium && info->detect_zeroes)
		print_to(p, "    Detect zeroes:    %s\n",
			 info->detect_zeroes == 1 ? "on" : "unmap");
	if (info->has_medium)
		print_limits(d, p);
}

static void print_node(const struct drive *d, const struct blk_info *info, bool first,
		       struct printer *p)
{
	if (!info->has_medium)
		return;
	print_to(p, "%s%s: %s (%s%s%s)\n", first ? "" : "\n", info->node, info->file, info->format,
		 info->readonly ? ", read-only" : "", info->encrypted ? ", encrypted" : "");
	if (d->device)
		print_to(p, "    Attached to:      %s\n", d->device->id);
	print_to(p, "    Cache mode:       %s\n", info->cache);
}

static void print_verbose(const struct drive *d, const struct blk_info *info, struct printer *p)
{
	u64 bytes = blk_bytes(d->blk);

	if (!info->has_medium)
		return;
	print_to(p, "\nImages:\nimage: %s\nfile format: %s\nvirtual size: %llu bytes\n", info->file,
		 info->format, (unsigned long long)bytes);
}

int vm_info_block(struct vm *vm, bool nodes, bool verbose, const char *device, struct printer *p,
		  struct error *err)
{
	bool first = true, found = false;

	list_for_each (pos, &vm->drives) {
		struct drive *d = list_entry(pos, struct drive, link);
		struct blk_info info;

		if (device && strcmp(device, d->config->id))
			continue;
		found = true;
		blk_get_info(d->blk, &info);
		if (nodes)
			print_node(d, &info, first, p);
		else
			print_drive(d, &info, first, p);
		if (verbose)
			print_verbose(d, &info, p);
		first = false;
		blk_info_fini(&info);
	}
	if (device && !found)
		return err_set(err, -ENODEV, "Device '%s' not found", device);
	return 0;
}

void vm_info_blockstats(struct vm *vm, struct printer *p)
{
	static const struct {
		const char *name;
		enum blk_op op;
	} kinds[] = {{"rd", BLK_READ}, {"wr", BLK_WRITE}};

	list_for_each (pos, &vm->drives) {
		struct drive *d = list_entry(pos, struct drive, link);
		struct blk_stats s;

		blk_get_stats(d->blk, &s);
		print_to(p, "%s:", d->config->id);
		for (unsigned i = 0; i < 2; i++)
			print_to(p, " %s_bytes=%llu", kinds[i].name,
				 (unsigned long long)s.bytes[kinds[i].op]);
		for (unsigned i = 0; i < 2; i++)
			print_to(p, " %s_operations=%llu", kinds[i].name,
				 (unsigned long long)s.ops[kinds[i].op]);
		print_to(p, " flush_operations=%llu", (unsigned long long)s.ops[BLK_FLUSH]);
		for (unsigned i = 2; i-- > 0;)
			print_to(p, " %s_total_time_ns=%llu", kinds[i].name,
				 (unsigned long long)s.total_ns[kinds[i].op]);
		print_to(p, " flush_total_time_ns=%llu rd_merged=0 wr_merged=0 idle_time_ns=%llu\n",
			 (unsigned long long)s.total_ns[BLK_FLUSH], (unsigned long long)s.idle_ns);
	}
}

/* The table of commands: one row each, sorted by name.  Help, completion and
 * parsing all come from it. */
#include "monitor/block_jobs.h"
#include "monitor/drives.h"
#include "monitor/net.h"
#include "monitor/screen.h"

#include <errno.h>

static bool flag(const struct cmd_args *a, char letter)
{
	return a->flags & 1u << (letter - 'a');
}

/* --- running -------------------------------------------------------------------- */

static int cmd_stop(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_stop(ctx->vm, err);
}

static int cmd_system_reset(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_system_reset(ctx->vm, err);
}

static int cmd_system_powerdown(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_system_powerdown(ctx->vm, err);
}

static int cmd_nmi(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_nmi(ctx->vm, *ctx->cpu, err);
}

static int cmd_quit(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	*ctx->done = true;
	vm_quit(ctx->vm);
	return 0;
}

static int cmd_cpu(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	if (a->number[0] >= vm_cpus(ctx->vm))
		return err_set(err, -EINVAL, "invalid CPU index");
	*ctx->cpu = (u32)a->number[0];
	return 0;
}

static int cmd_sendkey(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	u64 hold_ms = a->given[1] ? a->number[1] : 100;

	if (!hold_ms || hold_ms > 60000)
		return err_set(err, -EINVAL, "hold time is %llu ms, expected 1..60000",
			       (unsigned long long)hold_ms);
	/* The reference names a bad key without the word Error. */
	if (key_sender_send(ctx->keys, a->text[0], (u32)hold_ms, err) < 0)
		print_to(ctx->out, "%s\n", err->text);
	return 0;
}

static int cmd_balloon(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	u64 bytes;

	if ((s64)a->number[0] < 0 || !mul_ok(a->number[0], MiB, &bytes)) {
		print_to(ctx->out, "enter a positive value\n"
				   "Try \"help balloon\" for more information\n");
		return 0;
	}
	return vm_balloon(ctx->vm, bytes, err);
}

static int cmd_help(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	cmd_print_help(ctx, "", hmp_commands, a->text[0]);
	return 0;
}

/* --- info ------------------------------------------------------------------------- */

#define INFO(what)                                                                                 \
	static int cmd_info_##what(struct cmd_ctx *ctx, const struct cmd_args *a,                  \
				   struct error *err)                                              \
	{                                                                                          \
		vm_info_##what(ctx->vm, ctx->out);                                                 \
		return 0;                                                                          \
	}

INFO(status)
INFO(name)
INFO(uuid)
INFO(kvm)
INFO(blockstats)
INFO(mtree)
INFO(pci)
INFO(qtree)
INFO(irq)
INFO(chardev)
INFO(memdev)
INFO(memory_size)
INFO(mice)
INFO(vnc)

#define INFO_CPU(what)                                                                             \
	static int cmd_info_##what(struct cmd_ctx *ctx, const struct cmd_args *a,                  \
				   struct error *err)                                              \
	{                                                                                          \
		u64 cpu = a->given[0] ? a->number[0] : *ctx->cpu;                                  \
                                                                                                   \
		if (cpu >= vm_cpus(ctx->vm))                                                       \
			return err_set(err, -EINVAL, "CPU#%llu not available",                     \
				       (unsigned long long)cpu);                                   \
		return vm_info_##what(ctx->vm, (u32)cpu, ctx->out, err);                           \
	}

INFO_CPU(lapic)
INFO_CPU(mem)
INFO_CPU(tlb)

static int cmd_info_pic(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_info_pic(ctx->vm, ctx->out, err);
}

static int cmd_info_balloon(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_info_balloon(ctx->vm, ctx->out, err);
}

static int cmd_info_block(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_info_block(ctx->vm, flag(a, 'n'), flag(a, 'v'), a->text[0], ctx->out, err);
}

static int cmd_info_cpus(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	vm_info_cpus(ctx->vm, *ctx->cpu, ctx->out);
	return 0;
}

static int cmd_info_registers(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	u64 cpu = a->given[0] ? a->number[0] : *ctx->cpu;

	if (cpu >= vm_cpus(ctx->vm))
		return err_set(err, -EINVAL, "CPU#%llu not available", (unsigned long long)cpu);
	return vm_info_registers(ctx->vm, (u32)cpu, flag(a, 'a'), ctx->out, err);
}

static int cmd_info_version(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	print_to(ctx->out, "%s\n", COWVM_VERSION);
	return 0;
}

static int cmd_info_history(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	const char *line;

	for (unsigned i = 0; ctx->editor && (line = line_editor_history(ctx->editor, i)); i++)
		print_to(ctx->out, "%u: '%s'\n", i, line);
	return 0;
}

const struct cmd hmp_info_commands[] = {
	{"balloon", "", "", "show balloon information", cmd_info_balloon, NULL},
	{"block", "-n -v s?", "[-n] [-v] [device]",
	 "show info of one block device or all block devices (-n: show named nodes; -v: show "
	 "details)",
	 cmd_info_block, NULL},
	{"block-jobs", "", "", "show progress of ongoing block device operations",
	 cmd_info_block_jobs, NULL},
	{"blockstats", "", "", "show block device statistics", cmd_info_blockstats, NULL},
	{"chardev", "", "", "show the character devices", cmd_info_chardev, NULL},
	{"cpus", "", "", "show infos for each CPU", cmd_info_cpus, NULL},
	{"history", "", "", "show the command line history", cmd_info_history, NULL},
	{"irq", "", "", "show the interrupts statistics", cmd_info_irq, NULL},
	{"kvm", "", "", "show KVM information", cmd_info_kvm, NULL},
	{"lapic", "l?", "[apic-id]",
	 "show local apic state (apic-id: local apic to read, default is which of current CPU)",
	 cmd_info_lapic, NULL},
	{"mem", "", "", "show the active virtual memory mappings", cmd_info_mem, NULL},
	{"memdev", "", "", "show memory backends", cmd_info_memdev, NULL},
	{"memory_size_summary", "", "",
	 "show the amount of initially allocated and present hotpluggable (if enabled) memory in "
	 "bytes.",
	 cmd_info_memory_size, NULL},
	{"mice", "", "", "show which guest mouse is receiving events", cmd_info_mice, NULL},
	{"mtree", "", "", "show memory tree", cmd_info_mtree, NULL},
	{"name", "", "", "show the current VM name", cmd_info_name, NULL},
	{"network", "", "", "show the network state", cmd_info_network, NULL},
	{"pci", "", "", "show PCI info", cmd_info_pci, NULL},
	{"pic", "", "", "show PIC state", cmd_info_pic, NULL},
	{"qtree", "", "", "show device tree", cmd_info_qtree, NULL},
	{"registers", "-a l?", "[-a|vcpu]",
	 "show the cpu registers (-a: show register info for all cpus; vcpu: specific vCPU to "
	 "query; "
	 "show the current CPU's registers if no argument is specified)",
	 cmd_info_registers, NULL},
	{"snapshot-job", "", "", "show how far a snapshot that is being taken has come",
	 cmd_info_snapshot_job, NULL},
	{"snapshots", "", "", "show the currently saved VM snapshots", cmd_info_snapshots, NULL},
	{"status", "", "", "show the current VM status (running|paused)", cmd_info_status, NULL},
	{"tlb", "", "", "show virtual to physical memory mappings", cmd_info_tlb, NULL},
	{"usernet", "", "", "show user network stack connection states", cmd_info_usernet, NULL},
	{"uuid", "", "", "show the current VM UUID", cmd_info_uuid, NULL},
	{"version", "", "", "show the version of cowvm", cmd_info_version, NULL},
	{"vnc", "", "", "show the vnc server status", cmd_info_vnc, NULL},
	{0},
};

const struct cmd hmp_commands[] = {
	{"balloon", "l", "target", "request VM to change its memory allocation (in MB)",
	 cmd_balloon, NULL},
	{"block_commit", "B r?", "device [-t top] [-b base] [-s speed]",
	 "merge images of a device's chain into the one behind\n"
	 "\t\t\tthem: from top (default: the active image) down to\n"
	 "\t\t\tbase (default: the last image), which gets their data.\n"
	 "\t\t\tImages between them leave the chain; their files stay.\n"
	 "\t\t\tFrom the active image on: the job follows what the guest\n"
	 "\t\t\twrites until block_job_complete, which makes base the\n"
	 "\t\t\tdevice's image.  Speed in MiB/s, or with a suffix.",
	 cmd_block_commit, NULL},
	{"block_job_cancel", "-f B", "[-f] device",
	 "stop an active background block operation (use -f\n"
	 "\t\t\t if you want to abort the operation immediately\n"
	 "\t\t\t instead of keep running until data is in sync)",
	 cmd_block_job_cancel, NULL},
	{"block_job_complete", "B", "device", "stop an active background block operation",
	 cmd_block_job_complete, NULL},
	{"block_job_pause", "B", "device", "pause an active background block operation",
	 cmd_block_job_pause, NULL},
	{"block_job_resume", "B", "device", "resume a paused background block operation",
	 cmd_block_job_resume, NULL},
	{"block_job_set_speed", "B o", "device speed",
	 "set maximum speed for a background block operation", cmd_block_job_set_speed, NULL},
	{"block_passwd", "s s?", "device [password]",
	 "set the password of an encrypted block device, which is asked for if it is not given",
	 cmd_block_passwd, NULL},
	{"block_resize", "B o", "device size", "resize a block image", cmd_block_resize, NULL},
	{"block_set_io_throttle", "B l l l l l l", "device bps bps_rd bps_wr iops iops_rd iops_wr",
	 "change I/O throttle limits for a block drive", cmd_block_set_io_throttle, NULL},
	{"block_stream", "B o? F?", "device [speed [base]]",
	 "copy data from a backing file into a block device", cmd_block_stream, NULL},
	{"change", "B -f F s? s?", "device [-f] filename [format [read-only-mode]]",
	 "change a removable medium, optional format, use -f to force the operation;\n"
	 "\t\t\tor 'change vnc password [value]'",
	 cmd_change, NULL},
	{"commit", "B", "device|all",
	 "commit changes to the disk images (if -snapshot is used) or backing files", cmd_commit,
	 NULL},
	{"cont|c", "", "", "resume emulation; asks for the passphrases of encrypted disks first",
	 cmd_cont, NULL},
	{"cpu", "l", "index", "set the default CPU", cmd_cpu, NULL},
	{"delvm", "s", "tag", "delete a VM snapshot from its tag", cmd_delvm, NULL},
	{"eject", "-f B", "[-f] device", "eject a removable medium (use -f to force it)", cmd_eject,
	 NULL},
	{"expire_password", "s s -ds", "protocol time [-d display]",
	 "set vnc password expire-time: now, never, +seconds or seconds since 1970",
	 cmd_expire_password, NULL},
	{"gva2gpa", "l", "addr",
	 "print the guest physical address corresponding to a guest virtual address", cmd_gva2gpa,
	 NULL},
	{"help|?", "r?", "[cmd]", "show the help", cmd_help, NULL},
	{"hostfwd_add", "s s?", "[netdev_id] [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport",
	 "redirect TCP or UDP connections from host to guest (requires -net user)", cmd_hostfwd_add,
	 NULL},
	{"hostfwd_remove", "s s?", "[netdev_id] [tcp|udp]:[hostaddr]:hostport",
	 "remove host-to-guest TCP or UDP redirection", cmd_hostfwd_remove, NULL},
	{"i", "/ l", "/fmt addr", "I/O port read", cmd_in, NULL},
	{"info", "r?", "[subcommand]", "show various information about the system state", NULL,
	 hmp_info_commands},
	{"loadvm", "s", "tag", "restore a VM snapshot from its tag", cmd_loadvm, NULL},
	{"memsave", "l l s", "addr size file", "save to disk virtual memory dump", cmd_memsave,
	 NULL},
	{"mouse_button", "l", "state", "change mouse button state (1=L, 2=M, 4=R)",
	 cmd_mouse_button, NULL},
	{"mouse_move", "s s s?", "dx dy [dz]", "send mouse move events", cmd_mouse_move, NULL},
	{"mouse_set", "l", "index", "set which mouse device receives events", cmd_mouse_set, NULL},
	{"netdev_add", "s", "[user|tap|socket|hubport],id=str[,prop=value][,...]",
	 "add host network device", cmd_netdev_add, NULL},
	{"netdev_del", "s", "id", "remove host network device", cmd_netdev_del, NULL},
	{"nmi", "", "", "inject an NMI", cmd_nmi, NULL},
	{"o", "/ l l", "/fmt addr value", "I/O port write", cmd_out, NULL},
	{"pmemsave", "l l s", "addr size file", "save to disk physical memory dump", cmd_pmemsave,
	 NULL},
	{"print|p", "/ l", "/fmt expr", "print expression value (use $reg for CPU register access)",
	 cmd_print, NULL},
	{"quit|q", "", "", "quit the emulator", cmd_quit, NULL},
	{"savevm", "-d -x s?", "[-d] [-x] [tag]",
	 "save a VM snapshot. If no tag is provided, a new snapshot is created (-d: return as soon "
	 "as the guest runs on; -x: put overlays over disks that have no snapshots)",
	 cmd_savevm, NULL},
	{"screendump", "F -fs", "filename [-f format]",
	 "save screen as image 'filename' in the format 'ppm' (default) or 'png'", cmd_screendump,
	 NULL},
	{"sendkey", "s l?", "keys [hold_ms]",
	 "send keys to the VM (e.g. 'sendkey ctrl-alt-f1', default hold time=100 ms)", cmd_sendkey,
	 NULL},
	{"set_link", "s s", "name on|off", "change the link status of a network adapter",
	 cmd_set_link, NULL},
	{"set_password", "s s -ds s?", "protocol password [-d display] [action-if-connected]",
	 "set vnc password", cmd_set_password, NULL},
	{"snapshot_blkdev", "-n B F? s?", "[-n] device [new-image-file] [format]",
	 "initiates a live snapshot\n\t\t\tof device. If a new image file is specified, the\n"
	 "\t\t\tnew image file will become the new root image.\n"
	 "\t\t\tIf format is specified, the snapshot file will\n"
	 "\t\t\tbe created in that format.\n"
	 "\t\t\tThe default format is qcow2.  The -n flag requests cowvm\n"
	 "\t\t\tto reuse the image found in new-image-file, instead of\n"
	 "\t\t\trecreating it from scratch.",
	 cmd_snapshot_blkdev, NULL},
	{"snapshot_blkdev_all", "s", "suffix",
	 "initiates a live snapshot of all\n\t\t\twritable devices at one moment, or of none.\n"
	 "\t\t\tThe new image of disk.qcow2 is disk-suffix.qcow2.",
	 cmd_snapshot_blkdev_all, NULL},
	{"snapshot_blkdev_internal", "B s", "device name",
	 "take an internal snapshot of device.\n"
	 "\t\t\tThe format of the image used by device must\n"
	 "\t\t\tsupport it, such as qcow2.\n\t\t\t",
	 cmd_snapshot_blkdev_internal, NULL},
	{"snapshot_cancel", "", "", "give up the snapshot that is being taken", cmd_snapshot_cancel,
	 NULL},
	{"snapshot_delete_blkdev_internal", "B s s?", "device name [id]",
	 "delete an internal snapshot of device.\n"
	 "\t\t\tIf id is specified, cowvm will try delete\n"
	 "\t\t\tthe snapshot matching both id and name.\n"
	 "\t\t\tThe format of the image used by device must\n"
	 "\t\t\tsupport it, such as qcow2.\n\t\t\t",
	 cmd_snapshot_delete_blkdev_internal, NULL},
	{"snapshot_merge", "B", "device",
	 "fold the active image of device into the one behind it,\n"
	 "\t\t\twhich becomes the device's image; the folded image's\n"
	 "\t\t\tfile is left, and not used any more",
	 cmd_snapshot_merge, NULL},
	{"snapshot_revert", "B", "device",
	 "go back to the image behind the active one of device:\n"
	 "\t\t\tall that was written since is thrown away, and the\n"
	 "\t\t\tactive image starts anew (stop the guest before, and\n"
	 "\t\t\treset it or bring back its memory afterwards)",
	 cmd_snapshot_revert, NULL},
	{"stop|s", "", "", "stop emulation", cmd_stop, NULL},
	{"sum", "l l", "addr size", "compute the checksum of a memory region", cmd_sum, NULL},
	{"system_powerdown", "", "", "send system power down event", cmd_system_powerdown, NULL},
	{"system_reset", "", "", "reset the system", cmd_system_reset, NULL},
	{"x", "/ l", "/fmt addr", "virtual memory dump starting at 'addr'", cmd_x, NULL},
	{"xp", "/ l", "/fmt addr", "physical memory dump starting at 'addr'", cmd_xp, NULL},
	{0},
};

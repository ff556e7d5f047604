/* The devices that every `pc` has, in the order in which they depend on each other.
 *
 * PCI: 00.0 i440FX, 01.0 PIIX3 (PCI-ISA), 01.1 PIIX3 IDE, 01.3 PIIX4 power management,
 * 02.0 VGA.  Port addresses and interrupts are the classes' defaults. */
#include "devices/device.h"
#include "firmware/firmware.h"
#include "vmm/vm.h"

#include <errno.h>

struct part {
	const char *driver, *id;
	const char *addr; /* PCI slot.function; NULL: not on PCI */
	size_t keep;	  /* where in struct vm; 0: nowhere */
	bool is_vga;
};

#define KEEP(member) offsetof(struct vm, member)

static const struct part parts[] = {
	{.driver = "i440FX", .id = "i440fx", .addr = "0.0", .keep = KEEP(host_bridge)},
	{.driver = "PIIX3", .id = "piix3", .addr = "1.0", .keep = KEEP(isa_bridge)},
	{.driver = "piix3-ide", .id = "piix3-ide", .addr = "1.1", .keep = KEEP(ide)},
	{.driver = "PIIX4_PM", .id = "piix4-pm", .addr = "1.3", .keep = KEEP(pm)},
	{.driver = "fw_cfg_io", .id = "fwcfg", .keep = KEEP(fwcfg)},
	{.driver = "mc146818rtc", .id = "rtc", .keep = KEEP(rtc)},
	{.driver = "i8042", .id = "i8042", .keep = KEEP(keyboard)},
	{.driver = "port92", .id = "port92"},
	{.driver = "VGA", .id = "vga", .addr = "2.0", .is_vga = true},
};

static int make_part(struct vm *vm, const struct part *part, const char *rom, struct error *err)
{
	struct prop_value values[2];
	struct device_args args = {.id = part->id, .values = values};
	struct device *dev;
	int ret;

	if (part->addr) {
		values[args.n_values++] = (struct prop_value){.name = "addr", .text = part->addr};
		args.parent = vm->host_bridge;
	}
	if (rom)
		values[args.n_values++] = (struct prop_value){.name = "romfile", .text = rom};
	ret = vm_add_device(vm, &dev, part->driver, &args, err);
	if (ret == 0 && part->keep)
		*(struct device **)((char *)vm + part->keep) = dev;
	return ret;
}

static int add_part(struct vm *vm, const struct part *part, struct error *err)
{
	AUTO_FREE const char **dirs = NULL;
	AUTO_FREE char *rom = NULL;
	unsigned n;

	if (part->is_vga) {
		dirs = vm_firmware_dirs(vm, &n);
		if (firmware_find(&rom, FIRMWARE_VGA_ROM, dirs, n, err) < 0)
			return err->code;
	}
	return make_part(vm, part, rom, err);
}

/* Asked for by -vga; with -nodefaults only then.  -device VGA takes its place. */
static bool wants_vga(const struct config *c)
{
	list_for_each (pos, &c->devices)
		if (!strcmp(list_entry(pos, struct device_config, link)->driver, "VGA"))
			return false;
	return c->vga ? strcmp(c->vga, "none") != 0 : !c->no_devices;
}

static int add_debugcon(struct vm *vm, const struct frontend_config *f, struct error *err)
{
	struct prop_value values[] = {{.name = "chardev"}, {.name = "iobase", .text = "0x402"}};
	struct device_args args = {.values = values, .n_values = ARRAY_LEN(values)};
	struct chardev *stream;
	struct device *dev;
	int ret = vm_stream_for(vm, &stream, "debugcon", f, err);

	if (ret < 0 || !stream)
		return ret;
	values[0].ptr = stream;
	return vm_add_device(vm, &dev, "isa-debugcon", &args, err);
}

int vm_add_board(struct vm *vm, struct error *err)
{
	int ret = 0;

	for (unsigned i = 0; i < ARRAY_LEN(parts) && ret == 0; i++)
		if (!parts[i].is_vga || wants_vga(vm->config))
			ret = add_part(vm, &parts[i], err);
	if (ret == 0)
		ret = vm_add_serials(vm, err);
	list_for_each (pos, &vm->config->debugcons)
		if (ret == 0)
			ret = add_debugcon(vm, list_entry(pos, struct frontend_config, link), err);
	return ret;
}

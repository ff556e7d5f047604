/* What a machine boots: firmware, the order of its devices, a kernel of the user's. */
#define _GNU_SOURCE
#include "devices/device.h"
#include "devices/fwcfg.h"
#include "devices/pci.h"
#include "devices/rtc.h"
#include "firmware/firmware.h"
#include "firmware/linuxboot.h"
#include "vmm/boot_order.h"
#include "vmm/vm.h"

#include <errno.h>
#include <time.h>

const char **vm_firmware_dirs(const struct vm *vm, unsigned *n)
{
	const char **dirs;
	unsigned room = 0;

	list_for_each (pos, &vm->config->firmware_dirs)
		room++;
	dirs = xnew_n(const char *, room);
	*n = 0;
	list_for_each (pos, &vm->config->firmware_dirs)
		dirs[(*n)++] = list_entry(pos, struct dir_config, link)->path;
	return dirs;
}

/* Is there a serial port at these ports? */
static bool has_port(const struct vm *vm, u32 iobase)
{
	list_for_each (pos, &vm->machine.devices) {
		const struct device *dev = list_entry(pos, struct device, link);

		if (!strcmp(dev->cls->name, "isa-serial") && vm_device_u32(dev, "iobase") == iobase)
			return true;
	}
	return false;
}

static bool has_vga(const struct vm *vm)
{
	list_for_each (pos, &vm->machine.devices)
		if (!strcmp(list_entry(pos, struct device, link)->cls->name, "VGA"))
			return true;
	return false;
}

static int load_kernel(struct vm *vm, struct error *err)
{
	const struct config *c = vm->config;
	struct linuxboot_options options = {
		.kernel = c->kernel, .initrd = c->initrd, .append = c->append};

	if (!c->kernel)
		return 0;
	return linuxboot_setup(fwcfg_of(vm->fwcfg), &vm->machine, &options, err);
}

static int pci_place(void *arg, const char *id)
{
	const struct device *dev = device_find(&((struct vm *)arg)->machine, id);

	if (!dev || dev->cls->bus != DEVICE_ON_PCI)
		return -ENOENT;
	return container_of(dev, struct pci_dev, dev)->devfn;
}

int vm_load_firmware(struct vm *vm, struct error *err)
{
	const struct config *c = vm->config;
	AUTO_FREE char *order = boot_order_text(&vm->machine, c->kernel, c->boot_strict);
	unsigned n_dirs;
	AUTO_FREE const char **dirs = vm_firmware_dirs(vm, &n_dirs);
	struct firmware_options options = {
		.bios = c->bios,
		.dirs = dirs,
		.n_dirs = n_dirs,
		.uuid = c->has_uuid ? c->uuid : NULL,
		.smbios = c->smbios,
		.pci_place = pci_place,
		.pci_arg = vm,
		.boot_files = order,
		.boot_menu = c->boot_menu,
		.splash_ms = c->boot_splash_ms,
		.retry_ms = c->boot_retry_ms,
		.no_graphics = c->no_graphics,
		.sockets = c->sockets,
		.cores = c->cores,
		.threads = c->threads,
		.has_serial = {has_port(vm, 0x3f8), has_port(vm, 0x2f8)},
		.has_vga = has_vga(vm),
	};
	int ret = firmware_new(&vm->firmware, &vm->machine, fwcfg_of(vm->fwcfg), &options, err);

	return ret < 0 ? ret : load_kernel(vm, err);
}

/* The guest's clock at its first start. */
static void set_clock(struct vm *vm)
{
	time_t now = time(NULL);
	struct tm tm;

	rtc_follow(vm->rtc, (enum rtc_clock)vm->config->rtc_clock);
	switch (vm->config->rtc_base) {
	case RTC_UTC: return;
	case RTC_LOCALTIME:
		localtime_r(&now, &tm);
		rtc_set_time(vm->rtc, (s64)now + tm.tm_gmtoff);
		return;
	case RTC_DATE: rtc_set_time(vm->rtc, vm->config->rtc_date); return;
	}
}

void vm_reset_firmware(struct vm *vm)
{
	const struct config *c = vm->config;
	const char *order = c->boot_order ? c->boot_order : "cad";
	u8 cmos[2];

	if (!vm->was_reset) {
		set_clock(vm);
		order = c->boot_once ? c->boot_once : order;
	}
	vm->was_reset = true;
	boot_order_cmos(order, cmos);
	rtc_set_cmos(vm->rtc, CMOS_BOOT_DEVICES, cmos[0]);
	rtc_set_cmos(vm->rtc, CMOS_BOOT_THIRD, cmos[1]);
	firmware_reset(vm->firmware);
}

void vm_free_firmware(struct vm *vm)
{
	firmware_free(vm->firmware);
}

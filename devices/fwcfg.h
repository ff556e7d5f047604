/* fw_cfg: how firmware gets tables and files from us (ports 0x510-0x51b, DMA).
 * QEMU's docs/specs/fw_cfg; the signature and file directory are its interface. */
#ifndef DEVICES_FWCFG_H
#define DEVICES_FWCFG_H

#include "devices/device.h"

struct fwcfg;
extern const struct device_class fwcfg_class;

enum fwcfg_key {
	FWCFG_SIGNATURE = 0x00,
	FWCFG_ID = 0x01,
	FWCFG_UUID = 0x02,
	FWCFG_RAM_SIZE = 0x03,
	FWCFG_NOGRAPHIC = 0x04,
	FWCFG_NB_CPUS = 0x05,
	FWCFG_KERNEL_ADDR = 0x07,
	FWCFG_KERNEL_SIZE = 0x08,
	FWCFG_INITRD_ADDR = 0x0a,
	FWCFG_INITRD_SIZE = 0x0b,
	FWCFG_BOOT_MENU = 0x0e,
	FWCFG_MAX_CPUS = 0x0f,
	FWCFG_KERNEL_ENTRY = 0x10,
	FWCFG_KERNEL_DATA = 0x11,
	FWCFG_INITRD_DATA = 0x12,
	FWCFG_CMDLINE_ADDR = 0x13,
	FWCFG_CMDLINE_SIZE = 0x14,
	FWCFG_CMDLINE_DATA = 0x15,
	FWCFG_SETUP_ADDR = 0x16,
	FWCFG_SETUP_SIZE = 0x17,
	FWCFG_SETUP_DATA = 0x18,
	FWCFG_FILE_DIR = 0x19,
	FWCFG_ARCH_LOCAL = 0x8000,
	FWCFG_IRQ0_OVERRIDE = 0x8002,
	FWCFG_E820 = 0x8003,
	FWCFG_NUMA = 0x000d,
	FWCFG_HPET = 0x8004,
};

struct fwcfg *fwcfg_of(struct device *dev);
/* All copy; a key is given once.  Adding after the guest has started is a bug. */
void fwcfg_add_bytes(struct fwcfg *fw, u16 key, const void *data, size_t bytes);
void fwcfg_add_u16(struct fwcfg *fw, u16 key, u16 value);
void fwcfg_add_u32(struct fwcfg *fw, u16 key, u32 value);
void fwcfg_add_u64(struct fwcfg *fw, u16 key, u64 value);
/* A named file ("etc/e820", "bootorder", "genroms/x.rom"), at most 55 characters and
 * given once.  Files are read-only for the guest. */
void fwcfg_add_file(struct fwcfg *fw, const char *name, const void *data, size_t bytes);
/* What was added under a name; NULL: nothing.  Lent until the next addition. */
const void *fwcfg_file(struct fwcfg *fw, const char *name, size_t *bytes);

#endif

/* Firmware: the BIOS in memory, and the tables that it is handed by fw_cfg.
 *
 * The machine's devices exist already; nothing has run yet.  Thread: control. */
#ifndef FIRMWARE_FIRMWARE_H
#define FIRMWARE_FIRMWARE_H

#include "base/base.h"
#include "base/error.h"
#include "base/opts.h"
#include "devices/fwcfg.h"
#include "firmware/smbios.h"
#include "vmm/core/machine.h"

struct firmware;

#define FIRMWARE_NOT_GIVEN UINT32_MAX

struct firmware_options {
	const char *bios;	 /* -bios; NULL: bios-256k.bin */
	const char *const *dirs; /* -L, searched first */
	unsigned n_dirs;
	const u8 *uuid;		/* 16 bytes in the order they are written; NULL: none */
	const char *boot_files; /* "bootorder": paths, a line each; NULL or "": not given */
	bool boot_menu;
	u32 splash_ms, retry_ms; /* FIRMWARE_NOT_GIVEN */
	bool no_graphics;	 /* firmware talks to the first serial port */
	/* What -smbios says of structures, SMBIOS_TYPES lists by the keys of that option (see
	 * vmm/option_smbios.c); NULL, or without a key: the program's own. */
	const struct opts *smbios;
	int (*pci_place)(void *arg, const char *id); /* of a device: devfn; -ENOENT */
	void *pci_arg;
	u32 sockets, cores, threads;	      /* for SMBIOS; 0: one socket per processor */
	bool has_serial[2], has_vga, no_bios; /* no_bios: a kernel is entered directly */
};

/* Load and map the BIOS, fill fw_cfg.  opt is lent for the call. */
int firmware_new(struct firmware **out, struct machine *m, struct fwcfg *fw,
		 const struct firmware_options *opt, struct error *err);
void firmware_free(struct firmware *f); /* NULL is fine */
/* Memory as the BIOS finds it at power-on: its last 128 KiB at 0xe0000. */
void firmware_reset(struct firmware *f);

/* Full path of a firmware file ("vgabios-stdvga.bin", or a path of its own): to be
 * freed.  Looks at the name itself, then in dirs, then where Debian puts them. */
int firmware_find(char **path, const char *name, const char *const *dirs, unsigned n_dirs,
		  struct error *err);
#define FIRMWARE_VGA_ROM "vgabios-stdvga.bin" /* "romfile" of the VGA device */

/* Memory map as the guest is told: for a kernel's boot parameters. */
enum e820_type { E820_RAM = 1, E820_RESERVED = 2 };
struct e820_entry {
	u64 addr, bytes;
	enum e820_type type;
};
unsigned firmware_e820(const struct machine *m, struct e820_entry *out, unsigned room);

/* Without a BIOS: put the ACPI and SMBIOS tables into guest memory as the BIOS would
 * (pointers at 0xf0000, which the map above reserves).  After each reset. */
int firmware_place_tables(struct firmware *f, struct error *err);

#endif

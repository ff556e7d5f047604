/* Direct kernel boot: -kernel, -initrd and -append on a machine with a BIOS. */
#ifndef FIRMWARE_LINUXBOOT_H
#define FIRMWARE_LINUXBOOT_H

#include "base/error.h"
#include "devices/fwcfg.h"
#include "vmm/core/machine.h"

struct linuxboot_options {
	const char *kernel; /* bzImage, or multiboot (version 1) in ELF or with addresses */
	const char *initrd; /* or NULL; multiboot: "file args,file args" */
	const char *append; /* or NULL */
};

/* The line that must come first in fw_cfg's "bootorder". */
#define LINUXBOOT_BOOTORDER "/rom@genroms/linuxboot.bin"

/* Read and judge the files, decide where everything goes in the memory of m, and
 * hand it to the BIOS: the option ROM and the pieces that it fetches. */
int linuxboot_setup(struct fwcfg *fw, const struct machine *m, const struct linuxboot_options *opt,
		    struct error *err);

#endif

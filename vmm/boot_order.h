/* Boot order for the firmware; see boot_order.c. */
#ifndef VMM_BOOT_ORDER_H
#define VMM_BOOT_ORDER_H

#include "vmm/core/machine.h"

/* Lines of fw_cfg's "bootorder" (free() it), from the devices' "bootindex". */
char *boot_order_text(const struct machine *m, bool has_kernel, bool strict);

/* CMOS 0x3d and 0x38 for letters as -boot takes them. */
#define CMOS_BOOT_DEVICES 0x3d
#define CMOS_BOOT_THIRD	  0x38
void boot_order_cmos(const char *letters, u8 cmos[2]);

#endif

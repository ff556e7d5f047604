/* A channel with a disk as drive 0 and a CD as drive 1, host memory in an array
 * and a bus master that is one pointer: for tests of the ATA core alone. */
#ifndef TESTS_LIB_ATA_RIG_H
#define TESTS_LIB_ATA_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "devices/ide/ata_int.h"
#include "tests/lib/fake_blk.h"

#include <errno.h>

#define HD_SECTORS 5000u
#define CD_BLOCKS  300u

struct rig {
	struct ata_channel ch;
	struct mutex lock;
	struct ata_drive hd, cd;
	struct blk *hd_blk, *cd_blk;
	bool irq;
	unsigned rises, stops;
	u8 memory[256 * 1024];
	bool started, fault;
	u32 at, end; /* bus master: where in memory, how far */
};

void rig_init(struct rig *r);
void rig_fini(struct rig *r);

u8 rd(struct rig *r, unsigned reg);
void wr(struct rig *r, unsigned reg, u8 value);
u8 alt_status(struct rig *r);
void control(struct rig *r, u8 value);
void dma_start(struct rig *r, u32 at, u32 bytes);
void dma_stop(struct rig *r);
/* Data port, 16 bits wide in and 32 bits wide out. */
void pio_in(struct rig *r, void *to, u32 bytes);
void pio_out(struct rig *r, const void *from, u32 bytes);
void command28(struct rig *r, u8 opcode, u32 lba, u8 count);
void command48(struct rig *r, u8 opcode, u64 lba, u16 count);
void assert_disk_bytes(const u8 *got, u64 goff, u32 bytes);

int rig_setup(void **state);
int rig_teardown(void **state);
#define RIG_TEST(fn) cmocka_unit_test_setup_teardown(fn, rig_setup, rig_teardown)

#endif

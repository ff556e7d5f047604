/* The ATA core: registers, commands, PIO, DMA, errors, resets. */
#include "tests/lib/ata_rig.h"

#include "base/bytes.h"

static u16 word(const u8 *page, unsigned n)
{
	return load_le16(page + 2 * n);
}

static void identify_tells_what_the_disk_is(void **state)
{
	struct rig *r = *state;
	u8 page[512], sum = 0;

	command28(r, 0xec, 0, 0);
	assert_true(r->irq);
	assert_int_equal(rd(r, REG_CMD), ATA_READY | ATA_DRQ);
	assert_false(r->irq);
	pio_in(r, page, 512);
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
	assert_int_equal(word(page, 0), 0x0040);
	assert_memory_equal(page + 54, "OCVW MAHDRIDKS  ", 16);
	assert_memory_equal(page + 20, "ES1R  ", 6);
	assert_int_equal(word(page, 1), 4); /* 5000 / (16 * 63) */
	assert_int_equal(word(page, 3), 16);
	assert_int_equal(word(page, 6), 63);
	assert_int_equal(word(page, 47), 0x8080);
	assert_int_equal(word(page, 49) & 0x0300, 0x0300);
	assert_int_equal(load_le32(page + 120), HD_SECTORS);
	assert_int_equal(word(page, 63), 0x0007);
	assert_int_equal(word(page, 83), 0x7400);
	assert_int_equal(word(page, 85) & 0x21, 0x21);
	assert_int_equal(word(page, 88), 0x003f);
	assert_int_equal(load_le64(page + 200), HD_SECTORS);
	assert_int_equal(word(page, 169), 1);
	for (unsigned i = 0; i < 512; i++)
		sum = (u8)(sum + page[i]);
	assert_int_equal(page[510], 0xa5);
	assert_int_equal(sum, 0);
}

static void pio_read_gives_an_interrupt_per_sector(void **state)
{
	struct rig *r = *state;
	u8 data[3 * 512];

	command28(r, 0x20, 10, 3);
	assert_int_equal(alt_status(r) & (ATA_BSY | ATA_DRQ), ATA_BSY);
	fake_blk_run(r->hd_blk);
	assert_int_equal(fake_blk_log(r->hd_blk)->count[BLK_READ], 1);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(r->irq);
		assert_int_equal(rd(r, REG_CMD), ATA_READY | ATA_DRQ);
		assert_false(r->irq);
		pio_in(r, data + 512 * i, 512);
	}
	assert_false(r->irq); /* none at the end */
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
	assert_int_equal(rd(r, REG_LOW), 12);
	assert_disk_bytes(data, 10 * 512, sizeof(data));
}

static void pio_read_of_256_sectors_goes_through_the_buffer_twice(void **state)
{
	struct rig *r = *state;
	u8 *data = xalloc(256 * 512);

	command28(r, 0x20, 100, 0);
	fake_blk_run(r->hd_blk);
	pio_in(r, data, 128 * 512);
	assert_int_equal(alt_status(r) & (ATA_BSY | ATA_DRQ), ATA_BSY);
	fake_blk_run(r->hd_blk);
	pio_in(r, data + 128 * 512, 128 * 512);
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
	assert_disk_bytes(data, 100 * 512, 256 * 512);
	free(data);
}

static void pio_write_reaches_the_disk_at_the_end(void **state)
{
	struct rig *r = *state;
	u8 data[2 * 512];

	memset(data, 0xc3, sizeof(data));
	command28(r, 0x30, 7, 2);
	assert_false(r->irq); /* none for the first block */
	assert_int_equal(rd(r, REG_CMD), ATA_READY | ATA_DRQ);
	pio_out(r, data, 512);
	assert_true(r->irq);
	assert_int_equal(rd(r, REG_CMD), ATA_READY | ATA_DRQ);
	pio_out(r, data, 512);
	assert_int_equal(alt_status(r) & (ATA_BSY | ATA_DRQ), ATA_BSY);
	assert_false(r->irq);
	fake_blk_run(r->hd_blk);
	assert_true(r->irq);
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
	assert_memory_equal(fake_blk_data(r->hd_blk) + 7 * 512, data, sizeof(data));
	assert_int_equal(fake_blk_log(r->hd_blk)->flags, 0);
}

static void write_cache_off_makes_writes_durable(void **state)
{
	struct rig *r = *state;
	u8 data[512] = {1};

	wr(r, REG_FEATURE, 0x82);
	wr(r, REG_CMD, 0xef);
	fake_blk_run(r->hd_blk);
	assert_int_equal(fake_blk_log(r->hd_blk)->count[BLK_FLUSH], 1);
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
	command28(r, 0x30, 7, 1);
	pio_out(r, data, 512);
	fake_blk_run(r->hd_blk);
	assert_int_equal(fake_blk_log(r->hd_blk)->flags, BLK_FUA);
}

static void multiple_moves_several_sectors_per_interrupt(void **state)
{
	struct rig *r = *state;
	u8 data[10 * 512];
	unsigned rises;

	command28(r, 0xc4, 0, 8); /* before SET MULTIPLE */
	assert_int_equal(rd(r, REG_CMD), ATA_READY | ATA_ERR);
	assert_int_equal(rd(r, REG_FEATURE), ATA_ABRT);
	wr(r, REG_COUNT, 3);
	wr(r, REG_CMD, 0xc6);
	assert_int_equal(rd(r, REG_FEATURE), ATA_ABRT);
	wr(r, REG_COUNT, 4);
	wr(r, REG_CMD, 0xc6);
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
	rises = r->rises;
	command48(r, 0x29, 20, 10);
	fake_blk_run(r->hd_blk);
	for (unsigned i = 0; i < 10; i += 4) {
		assert_int_equal(rd(r, REG_CMD), ATA_READY | ATA_DRQ);
		pio_in(r, data + 512 * i, MIN(4u, 10 - i) * 512);
	}
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
	assert_int_equal(r->rises - rises, 3);
	assert_disk_bytes(data, 20 * 512, sizeof(data));
}

static void dma_read_waits_for_the_bus_master(void **state)
{
	struct rig *r = *state;

	command48(r, 0x25, 1000, 64);
	assert_int_equal(fake_blk_pending(r->hd_blk), 0);
	dma_start(r, 4096, 64 * 512);
	assert_int_equal(fake_blk_pending(r->hd_blk), 1);
	assert_int_equal(alt_status(r) & ATA_BSY, ATA_BSY);
	fake_blk_run(r->hd_blk);
	assert_true(r->irq);
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
	assert_disk_bytes(r->memory + 4096, 1000 * 512, 64 * 512);
}

static void dma_write_takes_guest_memory_as_it_is(void **state)
{
	struct rig *r = *state;

	memset(r->memory, 0x77, 8192);
	command28(r, 0xca, 16, 16);
	dma_start(r, 0, 8192);
	assert_int_equal(fake_blk_log(r->hd_blk)->niov, 2);
	fake_blk_run(r->hd_blk);
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
	assert_memory_equal(fake_blk_data(r->hd_blk) + 16 * 512, r->memory, 8192);
	command48(r, 0x3d, 16, 1);
	dma_start(r, 0, 512);
	assert_int_equal(fake_blk_log(r->hd_blk)->flags, BLK_FUA);
	fake_blk_run(r->hd_blk);
}

static void short_table_stalls_until_the_next_start(void **state)
{
	struct rig *r = *state;

	command28(r, 0xc8, 0, 8);
	dma_start(r, 0, 4 * 512 + 100);
	fake_blk_run(r->hd_blk);
	assert_false(r->irq);
	assert_int_equal(alt_status(r) & ATA_BSY, ATA_BSY);
	dma_stop(r);
	dma_start(r, 8192, 4 * 512);
	fake_blk_run(r->hd_blk);
	assert_true(r->irq);
	assert_disk_bytes(r->memory, 0, 4 * 512);
	assert_disk_bytes(r->memory + 8192, 4 * 512, 4 * 512);
}

static void table_into_nowhere_aborts(void **state)
{
	struct rig *r = *state;

	r->fault = true;
	command28(r, 0xc8, 0, 8);
	dma_start(r, 0, 4096);
	assert_int_equal(rd(r, REG_CMD), ATA_READY | ATA_ERR);
	assert_int_equal(rd(r, REG_FEATURE), ATA_ABRT);
}

static void stopped_transfer_does_not_complete(void **state)
{
	struct rig *r = *state;

	command28(r, 0xc8, 0, 8);
	dma_start(r, 0, 4096);
	dma_stop(r);
	fake_blk_run(r->hd_blk);
	assert_false(r->irq);
	assert_int_equal(alt_status(r) & ATA_BSY, ATA_BSY);
	dma_start(r, 16384, 4096);
	fake_blk_run(r->hd_blk);
	assert_true(r->irq);
	assert_disk_bytes(r->memory + 16384, 0, 4096);
}

static void reset_in_a_transfer_stays_busy_until_it_is_over(void **state)
{
	struct rig *r = *state;

	command28(r, 0xc8, 0, 8);
	dma_start(r, 0, 4096);
	control(r, ATA_SRST);
	control(r, 0);
	assert_int_equal(alt_status(r), ATA_BSY);
	wr(r, REG_COUNT, 0x55);
	fake_blk_run(r->hd_blk);
	assert_false(r->irq);
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
	assert_int_equal(rd(r, REG_FEATURE), 1);
	assert_int_equal(rd(r, REG_COUNT), 1);
	assert_int_equal(rd(r, REG_LOW), 1);
	assert_int_equal(rd(r, REG_MID), 0);
	wr(r, REG_DEVICE, 0xb0);
	assert_int_equal(rd(r, REG_MID), 0x14);
	assert_int_equal(rd(r, REG_HIGH), 0xeb);
	assert_int_equal(rd(r, REG_CMD), 0);
}

static void addresses_beyond_the_end_are_not_found(void **state)
{
	static const u8 opcodes[] = {0x20, 0x30, 0xc8, 0xca, 0x40};
	struct rig *r = *state;

	for (unsigned i = 0; i < ARRAY_LEN(opcodes); i++) {
		command28(r, opcodes[i], HD_SECTORS - 1, 2);
		assert_int_equal(rd(r, REG_CMD), ATA_READY | ATA_ERR);
		assert_int_equal(rd(r, REG_FEATURE), ATA_IDNF);
	}
	command48(r, 0x24, 0xffffffffffffull, 0);
	assert_int_equal(rd(r, REG_FEATURE), ATA_IDNF);
	command48(r, 0x24, 0, 0); /* 65536 sectors */
	assert_int_equal(rd(r, REG_FEATURE), ATA_IDNF);
	assert_int_equal(fake_blk_log(r->hd_blk)->count[BLK_READ], 0);
}

static void lba48_registers_are_read_back_by_hob(void **state)
{
	struct rig *r = *state;

	command48(r, 0x27, 0, 0);
	assert_int_equal(rd(r, REG_LOW), (HD_SECTORS - 1) & 0xff);
	assert_int_equal(rd(r, REG_MID), (HD_SECTORS - 1) >> 8);
	control(r, ATA_HOB);
	assert_int_equal(rd(r, REG_LOW), 0);
	wr(r, REG_LOW, 0x12); /* any write ends it */
	assert_int_equal(rd(r, REG_LOW), 0x12);
	control(r, ATA_HOB);
	assert_int_equal(rd(r, REG_LOW), (HD_SECTORS - 1) & 0xff);
}

static void chs_is_translated_as_set(void **state)
{
	struct rig *r = *state;
	u8 data[512];

	wr(r, REG_DEVICE, 0xa0 | 7); /* 8 heads of 10 sectors */
	wr(r, REG_COUNT, 10);
	wr(r, REG_CMD, 0x91);
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
	wr(r, REG_DEVICE, 0xa0 | 3);
	wr(r, REG_COUNT, 1);
	wr(r, REG_LOW, 5);
	wr(r, REG_MID, 2);
	wr(r, REG_HIGH, 0);
	wr(r, REG_CMD, 0x20);
	fake_blk_run(r->hd_blk);
	pio_in(r, data, 512);
	assert_disk_bytes(data, ((2 * 8 + 3) * 10 + 4) * 512, 512);
	wr(r, REG_LOW, 0); /* sectors count from 1 */
	wr(r, REG_CMD, 0x20);
	assert_int_equal(rd(r, REG_FEATURE), ATA_IDNF);
	wr(r, REG_LOW, 1);
	wr(r, REG_DEVICE, 0xa0 | 8);
	wr(r, REG_CMD, 0x20);
	assert_int_equal(rd(r, REG_FEATURE), ATA_IDNF);
}

static void failed_read_names_the_sector(void **state)
{
	struct rig *r = *state;

	fake_blk_fail(r->hd_blk, 1, -EIO);
	command28(r, 0xc8, 1234, 8);
	dma_start(r, 0, 4096);
	fake_blk_run(r->hd_blk);
	assert_true(r->irq);
	assert_int_equal(rd(r, REG_CMD), ATA_READY | ATA_ERR);
	assert_int_equal(rd(r, REG_FEATURE), ATA_UNC);
	assert_int_equal(rd(r, REG_LOW) | rd(r, REG_MID) << 8, 1234);
	dma_stop(r);
	fake_blk_fail(r->hd_blk, 1, -EIO);
	command28(r, 0xe7, 0, 0);
	fake_blk_run(r->hd_blk);
	assert_int_equal(rd(r, REG_CMD), ATA_READY | ATA_ERR);
	assert_int_equal(rd(r, REG_FEATURE), ATA_ABRT);
}

static void failed_write_aborts(void **state)
{
	struct rig *r = *state;
	u8 data[512] = {0};

	fake_blk_set_readonly(r->hd_blk, true);
	command28(r, 0x30, 9, 1);
	pio_out(r, data, 512);
	fake_blk_run(r->hd_blk);
	assert_int_equal(rd(r, REG_CMD), ATA_READY | ATA_ERR);
	assert_int_equal(rd(r, REG_FEATURE), ATA_ABRT);
	assert_int_equal(rd(r, REG_LOW), 9);
}

static void trim_discards_its_ranges(void **state)
{
	struct rig *r = *state;

	store_le64(r->memory, 100 | (u64)8 << 48);
	store_le64(r->memory + 8, 200 | (u64)1 << 48);
	memset(r->memory + 16, 0, 512 - 16);
	wr(r, REG_FEATURE, 1);
	command48(r, 0x06, 0, 1);
	dma_start(r, 0, 512);
	fake_blk_run(r->hd_blk);
	assert_true(r->irq);
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
	assert_int_equal(fake_blk_log(r->hd_blk)->count[BLK_DISCARD], 2);
	assert_int_equal(fake_blk_data(r->hd_blk)[107 * 512], 0);
	assert_int_equal(fake_blk_log(r->hd_blk)->goff, 200 * 512);
	store_le64(r->memory, (HD_SECTORS - 1) | (u64)2 << 48);
	command48(r, 0x06, 0, 1);
	dma_start(r, 0, 512);
	assert_int_equal(rd(r, REG_CMD), ATA_READY | ATA_ERR);
}

static void flush_waits_for_the_drive(void **state)
{
	struct rig *r = *state;

	command28(r, 0xea, 0, 0);
	assert_int_equal(alt_status(r) & ATA_BSY, ATA_BSY);
	assert_false(r->irq);
	fake_blk_run(r->hd_blk);
	assert_true(r->irq);
	assert_int_equal(fake_blk_log(r->hd_blk)->op, BLK_FLUSH);
}

static void power_modes_are_told(void **state)
{
	struct rig *r = *state;
	u8 data[512];

	command28(r, 0xe0, 0, 0);
	fake_blk_run(r->hd_blk);
	command28(r, 0xe5, 0, 0);
	assert_int_equal(rd(r, REG_COUNT), 0x00);
	command28(r, 0x20, 0, 1);
	fake_blk_run(r->hd_blk);
	pio_in(r, data, 512);
	command28(r, 0xe5, 0, 0);
	assert_int_equal(rd(r, REG_COUNT), 0xff);
	command28(r, 0xe6, 0, 0);
	fake_blk_run(r->hd_blk);
	rd(r, REG_CMD);
	command28(r, 0xec, 0, 0); /* asleep: no answer */
	assert_false(r->irq);
	control(r, ATA_SRST);
	control(r, 0);
	command28(r, 0xec, 0, 0);
	assert_true(r->irq);
}

static void transfer_modes_show_in_identify(void **state)
{
	struct rig *r = *state;
	u8 page[512];

	wr(r, REG_DEVICE, 0xa0);
	wr(r, REG_FEATURE, 3);
	wr(r, REG_COUNT, 0x45); /* UDMA 5 */
	wr(r, REG_CMD, 0xef);
	wr(r, REG_COUNT, 0x46);
	wr(r, REG_CMD, 0xef);
	assert_int_equal(rd(r, REG_FEATURE), ATA_ABRT);
	wr(r, REG_CMD, 0xec);
	pio_in(r, page, 512);
	assert_int_equal(word(page, 88), 0x203f);
	assert_int_equal(word(page, 63), 0x0007);
}

static void smart_says_healthy(void **state)
{
	struct rig *r = *state;

	wr(r, REG_DEVICE, 0xa0);
	wr(r, REG_FEATURE, 0xda);
	wr(r, REG_MID, 0x4f);
	wr(r, REG_HIGH, 0xc2);
	wr(r, REG_CMD, 0xb0);
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
	assert_int_equal(rd(r, REG_MID), 0x4f);
	wr(r, REG_MID, 0);
	wr(r, REG_CMD, 0xb0);
	assert_int_equal(rd(r, REG_FEATURE), ATA_ABRT);
}

static void nien_keeps_the_line_low(void **state)
{
	struct rig *r = *state;

	control(r, ATA_NIEN);
	command28(r, 0xec, 0, 0);
	assert_false(r->irq);
	control(r, 0);
	assert_true(r->irq);
	wr(r, REG_DEVICE, 0xb0); /* the other drive has none */
	assert_false(r->irq);
}

static void diagnostic_selects_drive_0_and_interrupts(void **state)
{
	struct rig *r = *state;

	wr(r, REG_DEVICE, 0xb0);
	wr(r, REG_CMD, 0x90);
	assert_true(r->irq);
	assert_int_equal(rd(r, REG_DEVICE), 0xa0);
	assert_int_equal(rd(r, REG_FEATURE), 1);
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
}

static void absent_drives_answer_zero_status(void **state)
{
	struct rig *r = *state;

	mutex_lock(&r->lock);
	r->ch.drives[1] = NULL;
	mutex_unlock(&r->lock);
	wr(r, REG_DEVICE, 0xb0);
	assert_int_equal(rd(r, REG_CMD), 0);
	wr(r, REG_CMD, 0xec);
	assert_int_equal(rd(r, REG_CMD), 0);
	assert_false(r->irq);
	r->ch.drives[0] = NULL;
	wr(r, REG_COUNT, 0x55);
	assert_int_equal(rd(r, REG_COUNT), 0);
	assert_int_equal(rd(r, REG_CMD), 0);
}

static void drive_1_works_alone(void **state)
{
	struct rig *r = *state;

	mutex_lock(&r->lock);
	r->ch.drives[0] = NULL;
	mutex_unlock(&r->lock);
	control(r, ATA_SRST);
	control(r, 0);
	assert_int_equal(rd(r, REG_CMD), 0);
	wr(r, REG_CMD, 0x90);
	assert_int_equal(rd(r, REG_DEVICE) & ATA_DEV, 0);
	wr(r, REG_DEVICE, 0xb0);
	assert_int_equal(rd(r, REG_MID), 0x14);
	wr(r, REG_CMD, 0xa1);
	assert_true(r->irq);
	assert_int_equal(rd(r, REG_CMD), ATA_READY | ATA_DRQ);
}

static void unknown_commands_abort(void **state)
{
	struct rig *r = *state;

	for (unsigned i = 0; i < 2; i++) {
		wr(r, REG_DEVICE, i ? 0xb0 : 0xa0);
		wr(r, REG_CMD, 0x02);
		assert_int_equal(rd(r, REG_CMD), ATA_READY | ATA_ERR);
		assert_int_equal(rd(r, REG_FEATURE), ATA_ABRT);
	}
}

static void verify_reads_and_forgets(void **state)
{
	struct rig *r = *state;

	command28(r, 0x40, 0, 200);
	fake_blk_run(r->hd_blk);
	assert_true(r->irq);
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
	assert_int_equal(fake_blk_log(r->hd_blk)->count[BLK_READ], 2);
}

static void pause_waits_and_resume_goes_on(void **state)
{
	struct rig *r = *state;
	u8 *data = xalloc(256 * 512);

	ata_channel_pause(&r->ch);
	command28(r, 0x20, 0, 0);
	assert_int_equal(fake_blk_pending(r->hd_blk), 0);
	ata_channel_resume(&r->ch);
	assert_int_equal(fake_blk_pending(r->hd_blk), 1);
	fake_blk_run(r->hd_blk);
	pio_in(r, data, 128 * 512 - 2); /* the host stops within the buffer */
	ata_channel_pause(&r->ch);
	pio_in(r, data + 128 * 512 - 2, 2);
	assert_int_equal(alt_status(r) & ATA_BSY, ATA_BSY);
	ata_channel_resume(&r->ch);
	fake_blk_run(r->hd_blk);
	pio_in(r, data + 128 * 512, 128 * 512);
	assert_disk_bytes(data, 0, 256 * 512);
	free(data);
}

/* The machine stops, and goes on. */
static void stop_and_go(struct rig *r)
{
	assert_false(r->irq);
	assert_int_equal(alt_status(r) & ATA_BSY, ATA_BSY);
	assert_int_equal(fake_blk_pending(r->hd_blk), 0);
	ata_channel_pause(&r->ch);
	assert_true(r->stops);
	r->stops = 0;
	ata_channel_resume(&r->ch);
	fake_blk_run(r->hd_blk);
}

static void a_failed_step_is_taken_again_when_the_machine_goes_on(void **state)
{
	struct rig *r = *state;
	u8 data[1024];

	fake_blk_on_error(r->hd_blk, BLK_STOP);
	fake_blk_fail(r->hd_blk, 1, -EIO);
	command28(r, 0xc8, 1234, 8);
	dma_start(r, 0, 4096);
	fake_blk_run(r->hd_blk);
	fake_blk_fail(r->hd_blk, 1, -EIO); /* once more */
	stop_and_go(r);
	stop_and_go(r);
	assert_true(r->irq);
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
	assert_disk_bytes(r->memory, 1234 * 512, 4096);
	dma_stop(r);

	memset(data, 0x5a, sizeof(data));
	fake_blk_fail(r->hd_blk, 1, -ENOSPC);
	command28(r, 0x30, 9, 2);
	pio_out(r, data, 512);
	assert_true(r->irq);
	rd(r, REG_CMD);
	pio_out(r, data, 512);
	fake_blk_run(r->hd_blk);
	stop_and_go(r);
	assert_true(r->irq);
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
	assert_memory_equal(fake_blk_data(r->hd_blk) + 9 * 512, data, sizeof(data));

	fake_blk_fail(r->hd_blk, 1, -EIO);
	command28(r, 0xe7, 0, 0);
	fake_blk_run(r->hd_blk);
	stop_and_go(r);
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
}

static void a_failed_range_of_trim_is_discarded_again(void **state)
{
	struct rig *r = *state;

	store_le64(r->memory, 100 | (u64)8 << 48);
	store_le64(r->memory + 8, 200 | (u64)1 << 48);
	memset(r->memory + 16, 0, 512 - 16);
	fake_blk_on_error(r->hd_blk, BLK_STOP);
	fake_blk_fail(r->hd_blk, 2, -ENOSPC);
	wr(r, REG_FEATURE, 1);
	command48(r, 0x06, 0, 1);
	dma_start(r, 0, 512);
	fake_blk_run(r->hd_blk);
	stop_and_go(r);
	assert_true(r->irq);
	assert_int_equal(fake_blk_log(r->hd_blk)->count[BLK_DISCARD], 3);
	assert_int_equal(fake_blk_log(r->hd_blk)->goff, 200 * 512);
}

static void a_reset_forgets_what_waits(void **state)
{
	struct rig *r = *state;

	fake_blk_on_error(r->hd_blk, BLK_STOP);
	fake_blk_fail(r->hd_blk, 1, -EIO);
	command28(r, 0x20, 0, 1);
	fake_blk_run(r->hd_blk);
	assert_int_equal(r->stops, 1);
	control(r, ATA_SRST);
	control(r, 0);
	ata_channel_pause(&r->ch);
	ata_channel_resume(&r->ch);
	assert_int_equal(fake_blk_pending(r->hd_blk), 0);
	assert_int_equal(alt_status(r) & ATA_BSY, 0);
}

static void ignored_errors_are_successes(void **state)
{
	struct rig *r = *state;
	u8 data[512] = {0};

	fake_blk_on_error(r->hd_blk, BLK_IGNORE);
	fake_blk_fail(r->hd_blk, 1, -EIO);
	command28(r, 0x30, 9, 1);
	pio_out(r, data, 512);
	fake_blk_run(r->hd_blk);
	assert_true(r->irq);
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
	assert_disk_bytes(fake_blk_data(r->hd_blk) + 9 * 512, 9 * 512, 512);
	assert_int_equal(r->stops, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(identify_tells_what_the_disk_is),
		RIG_TEST(pio_read_gives_an_interrupt_per_sector),
		RIG_TEST(pio_read_of_256_sectors_goes_through_the_buffer_twice),
		RIG_TEST(pio_write_reaches_the_disk_at_the_end),
		RIG_TEST(write_cache_off_makes_writes_durable),
		RIG_TEST(multiple_moves_several_sectors_per_interrupt),
		RIG_TEST(dma_read_waits_for_the_bus_master),
		RIG_TEST(dma_write_takes_guest_memory_as_it_is),
		RIG_TEST(short_table_stalls_until_the_next_start),
		RIG_TEST(table_into_nowhere_aborts),
		RIG_TEST(stopped_transfer_does_not_complete),
		RIG_TEST(reset_in_a_transfer_stays_busy_until_it_is_over),
		RIG_TEST(addresses_beyond_the_end_are_not_found),
		RIG_TEST(lba48_registers_are_read_back_by_hob),
		RIG_TEST(chs_is_translated_as_set),
		RIG_TEST(failed_read_names_the_sector),
		RIG_TEST(failed_write_aborts),
		RIG_TEST(trim_discards_its_ranges),
		RIG_TEST(flush_waits_for_the_drive),
		RIG_TEST(power_modes_are_told),
		RIG_TEST(transfer_modes_show_in_identify),
		RIG_TEST(smart_says_healthy),
		RIG_TEST(nien_keeps_the_line_low),
		RIG_TEST(diagnostic_selects_drive_0_and_interrupts),
		RIG_TEST(absent_drives_answer_zero_status),
		RIG_TEST(drive_1_works_alone),
		RIG_TEST(unknown_commands_abort),
		RIG_TEST(verify_reads_and_forgets),
		RIG_TEST(pause_waits_and_resume_goes_on),
		RIG_TEST(a_failed_step_is_taken_again_when_the_machine_goes_on),
		RIG_TEST(a_failed_range_of_trim_is_discarded_again),
		RIG_TEST(a_reset_forgets_what_waits),
		RIG_TEST(ignored_errors_are_successes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

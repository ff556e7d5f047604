/* ATAPI CD-ROM: the packet protocol by PIO and DMA, sense, media, descriptions. */
#include "tests/lib/ata_rig.h"

#include "base/bytes.h"

/* Select the CD and send a packet, with a byte count limit, by PIO or for DMA. */
static void packet(struct rig *r, const u8 *cdb, u16 limit, bool dma)
{
	wr(r, REG_DEVICE, 0xb0);
	wr(r, REG_FEATURE, dma);
	wr(r, REG_MID, (u8)limit);
	wr(r, REG_HIGH, (u8)(limit >> 8));
	wr(r, REG_CMD, 0xa0);
	assert_int_equal(rd(r, REG_CMD), ATA_READY | ATA_DRQ);
	assert_int_equal(rd(r, REG_COUNT), ATAPI_COD);
	pio_out(r, cdb, 12);
	fake_blk_run(r->cd_blk);
}

/* Take blocks as they come; returns the bytes.  Ends in the status phase. */
static u32 take(struct rig *r, u8 *to, u32 limit)
{
	u32 n = 0;

	while (fake_blk_run(r->cd_blk), rd(r, REG_CMD) & ATA_DRQ) {
		u32 block = rd(r, REG_MID) | (u32)rd(r, REG_HIGH) << 8;

		assert_int_equal(rd(r, REG_COUNT), ATAPI_IO);
		assert_in_range(block, 1, limit);
		pio_in(r, to + n, block);
		n += block;
	}
	assert_int_equal(rd(r, REG_COUNT), ATAPI_IO | ATAPI_COD);
	return n;
}

static void ask_sense(struct rig *r, u8 key, u8 asc, u8 ascq)
{
	static const u8 cdb[12] = {0x03, [4] = 18};
	u8 sense[18];

	packet(r, cdb, 18, false);
	assert_int_equal(take(r, sense, 18), 18);
	assert_int_equal(sense[0], 0x70);
	assert_int_equal(sense[2], key);
	assert_int_equal(sense[12], asc);
	assert_int_equal(sense[13], ascq);
}

/* A packet that must fail so. */
static void refused(struct rig *r, const u8 *cdb, u8 key, u8 asc, u8 ascq)
{
	packet(r, cdb, 0xfffe, false);
	assert_int_equal(rd(r, REG_CMD), ATA_READY | ATA_ERR);
	assert_int_equal(rd(r, REG_FEATURE) >> 4, key);
	ask_sense(r, key, asc, ascq);
}

static u32 reply(struct rig *r, const u8 *cdb, u8 *to)
{
	packet(r, cdb, 0xfffe, false);
	return take(r, to, 0xfffe);
}

static const u8 test_unit_ready[12] = {0x00};

/* The drive past its power-on attention. */
static int ready_setup(void **state)
{
	rig_setup(state);
	ask_sense(*state, 0x06, 0x29, 0x00);
	return 0;
}

static void identify_aborts_with_the_packet_signature(void **state)
{
	struct rig *r = *state;
	u8 page[512];

	wr(r, REG_DEVICE, 0xb0);
	wr(r, REG_CMD, 0xec);
	assert_int_equal(rd(r, REG_CMD), ATA_READY | ATA_ERR);
	assert_int_equal(rd(r, REG_MID), 0x14);
	assert_int_equal(rd(r, REG_HIGH), 0xeb);
	wr(r, REG_CMD, 0xa1);
	pio_in(r, page, 512);
	assert_int_equal(load_le16(page), 0x85c0);
	assert_memory_equal(page + 54, "OCVW MVD-DOR M", 14);
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
}

static void first_command_after_power_on_gets_attention(void **state)
{
	struct rig *r = *state;

	refused(r, test_unit_ready, 0x06, 0x29, 0x00);
	packet(r, test_unit_ready, 0, false);
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
	assert_true(r->rises > 0);
}

static void read_10_by_pio_obeys_the_byte_count(void **state)
{
	struct rig *r = *state;
	static const u8 cdb[12] = {0x28, [5] = 20, [8] = 40};
	u8 *data = xalloc(40 * 2048);

	packet(r, cdb, 5000, false);
	assert_int_equal(take(r, data, 5000), 40 * 2048);
	assert_disk_bytes(data, 20 * 2048, 40 * 2048);
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
	free(data);
}

static void read_12_by_dma_goes_to_memory(void **state)
{
	struct rig *r = *state;
	static const u8 cdb[12] = {0xa8, [5] = 5, [9] = 8};
	unsigned rises;

	packet(r, cdb, 0, true);
	rises = r->rises;
	assert_int_equal(alt_status(r) & ATA_BSY, ATA_BSY);
	dma_start(r, 2048, 8 * 2048);
	fake_blk_run(r->cd_blk);
	assert_int_equal(r->rises, rises + 1);
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
	assert_int_equal(rd(r, REG_COUNT), ATAPI_IO | ATAPI_COD);
	assert_disk_bytes(r->memory + 2048, 5 * 2048, 8 * 2048);
}

static void small_answers_go_by_dma_too(void **state)
{
	struct rig *r = *state;
	static const u8 cdb[12] = {0x25};

	packet(r, cdb, 0, true);
	dma_start(r, 100, 8);
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
	assert_int_equal(load_be32(r->memory + 100), CD_BLOCKS - 1);
	assert_int_equal(load_be32(r->memory + 104), 2048);
}

static void reading_beyond_the_end_is_refused(void **state)
{
	struct rig *r = *state;
	static const u8 last[12] = {0x28, [4] = 1, [5] = 0x2b, [8] = 1};
	static const u8 over[12] = {0x28, [4] = 1, [5] = 0x2b, [8] = 2};
	static const u8 nothing[12] = {0x28, [5] = 1};
	static const u8 wild[12] = {0xa8, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	u8 data[2048];

	assert_int_equal(reply(r, last, data), 2048);
	refused(r, over, 0x05, 0x21, 0x00);
	refused(r, wild, 0x05, 0x21, 0x00);
	assert_int_equal(reply(r, nothing, data), 0);
}

static void failed_read_is_a_medium_error(void **state)
{
	struct rig *r = *state;
	static const u8 cdb[12] = {0x28, [5] = 20, [8] = 4};

	fake_blk_fail(r->cd_blk, 1, -EIO);
	refused(r, cdb, 0x03, 0x11, 0x00);
	fake_blk_fail(r->cd_blk, 1, -EIO);
	packet(r, cdb, 0, true);
	dma_start(r, 0, 8192);
	fake_blk_run(r->cd_blk);
	assert_int_equal(rd(r, REG_CMD), ATA_READY | ATA_ERR);
	ask_sense(r, 0x03, 0x11, 0x00);
}

static void table_into_nowhere_fails_the_packet(void **state)
{
	struct rig *r = *state;
	static const u8 cdb[12] = {0x28, [8] = 4};

	r->fault = true;
	packet(r, cdb, 0, true);
	dma_start(r, 0, 8192);
	assert_int_equal(rd(r, REG_CMD), ATA_READY | ATA_ERR);
	ask_sense(r, 0x0b, 0x4b, 0x00);
}

static void read_cd_gives_user_data_only(void **state)
{
	struct rig *r = *state;
	static const u8 data_only[12] = {0xbe, [5] = 3, [8] = 1, [9] = 0x10};
	static const u8 raw[12] = {0xbe, [5] = 3, [8] = 1, [9] = 0xf8};
	u8 data[2048];

	assert_int_equal(reply(r, data_only, data), 2048);
	assert_disk_bytes(data, 3 * 2048, 2048);
	refused(r, raw, 0x05, 0x24, 0x00);
}

static void no_medium_has_its_sense(void **state)
{
	struct rig *r = *state;
	static const u8 inquiry[12] = {0x12, [4] = 36};
	u8 data[36];

	fake_blk_set_medium(r->cd_blk, 0);
	refused(r, test_unit_ready, 0x06, 0x28, 0x00);
	refused(r, test_unit_ready, 0x02, 0x3a, 0x01);
	assert_int_equal(reply(r, inquiry, data), 36);
	fake_blk_set_medium(r->cd_blk, 10 * 2048);
	refused(r, test_unit_ready, 0x06, 0x28, 0x00);
	packet(r, test_unit_ready, 0, false);
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
}

static void tray_opens_unless_locked(void **state)
{
	struct rig *r = *state;
	static const u8 prevent[12] = {0x1e, [4] = 1}, allow[12] = {0x1e};
	static const u8 eject[12] = {0x1b, [4] = 2}, load[12] = {0x1b, [4] = 3};
	static const u8 events[12] = {0x4a, 1, [4] = 0x10, [8] = 8};
	u8 data[8];

	packet(r, prevent, 0, false);
	refused(r, eject, 0x05, 0x53, 0x02);
	packet(r, allow, 0, false);
	packet(r, eject, 0, false);
	assert_true(r->cd.tray_open);
	assert_int_equal(reply(r, events, data), 8);
	assert_int_equal(data[4], 3);
	assert_int_equal(data[5], 1);
	refused(r, test_unit_ready, 0x02, 0x3a, 0x02);
	packet(r, load, 0, false);
	assert_int_equal(reply(r, events, data), 8);
	assert_int_equal(data[4], 2);
	assert_int_equal(data[5], 2);
	refused(r, test_unit_ready, 0x06, 0x28, 0x00);
}

static void toc_has_one_data_track(void **state)
{
	struct rig *r = *state;
	static const u8 lba[12] = {0x43, [8] = 20}, msf[12] = {0x43, 2, [6] = 0xaa, [8] = 12};
	static const u8 sessions[12] = {0x43, 0, 1, [8] = 12}, raw[12] = {0x43, 2, 2, [8] = 200};
	static const u8 bad_track[12] = {0x43, [6] = 2, [8] = 20};
	u8 data[200];

	assert_int_equal(reply(r, lba, data), 20);
	assert_int_equal(load_be16(data), 18);
	assert_int_equal(data[6], 1);
	assert_int_equal(load_be32(data + 8), 0);
	assert_int_equal(data[14], 0xaa);
	assert_int_equal(load_be32(data + 16), CD_BLOCKS);
	assert_int_equal(reply(r, msf, data), 12);
	assert_memory_equal(data + 8, "\0\0\6\0", 4); /* 300 + 150 frames: 6 seconds */
	assert_int_equal(reply(r, sessions, data), 12);
	assert_int_equal(reply(r, raw, data), 48);
	assert_int_equal(data[4 + 22 + 3], 0xa2);
	refused(r, bad_track, 0x05, 0x24, 0x00);
}

static void configuration_names_the_profile(void **state)
{
	struct rig *r = *state;
	static const u8 all[12] = {0x46, [7] = 1}, one[12] = {0x46, 2, 0, 0x1e, [8] = 200};
	u8 data[256];
	u32 n = reply(r, all, data);

	assert_int_equal(load_be32(data), n - 4);
	assert_int_equal(load_be16(data + 6), 0x08);
	assert_int_equal(reply(r, one, data), 16);
	assert_int_equal(load_be16(data + 8), 0x1e);
	assert_int_equal(data[10] & 1, 1);
}

static void large_images_are_dvds(void **state)
{
	struct rig *r = *state;
	static const u8 all[12] = {0x46, [7] = 1};
	static const u8 structure[12] = {0xad, [8] = 8, [9] = 0};
	u8 data[2052];

	refused(r, structure, 0x05, 0x24, 0x00);
	/* Only the size matters; nothing is read. */
	fake_blk_set_medium(r->cd_blk, 400000ull * 2048);
	ask_sense(r, 0x06, 0x28, 0x00);
	reply(r, all, data);
	assert_int_equal(load_be16(data + 6), 0x10);
	assert_int_equal(reply(r, structure, data), 20);
	assert_int_equal(load_be32(data + 12), 0x30000 + 400000 - 1);
}

static void mode_pages_are_sensed(void **state)
{
	struct rig *r = *state;
	static const u8 ten[12] = {0x5a, 0, 0x2a, [8] = 200}, six[12] = {0x1a, 0, 0x3f, [4] = 200};
	static const u8 bad[12] = {0x5a, 0, 0x05, [8] = 200}, saved[12] = {0x5a, 0, 0xea, [8] = 9};
	u8 data[200];

	assert_int_equal(reply(r, ten, data), 30);
	assert_int_equal(load_be16(data), 28);
	assert_int_equal(data[8], 0x2a);
	assert_int_equal(reply(r, six, data), 4 + 8 + 12 + 22);
	refused(r, bad, 0x05, 0x24, 0x00);
	refused(r, saved, 0x05, 0x39, 0x00);
}

static void short_allocation_cuts_the_answer(void **state)
{
	struct rig *r = *state;
	static const u8 inquiry[12] = {0x12, [4] = 5}, none[12] = {0x12};
	u8 data[8];

	assert_int_equal(reply(r, inquiry, data), 5);
	assert_int_equal(data[0], 5);
	assert_int_equal(reply(r, none, data), 0);
}

static void unknown_packets_and_no_byte_count_are_refused(void **state)
{
	struct rig *r = *state;
	static const u8 bad[12] = {0x5c}, read[12] = {0x28, [8] = 1};

	refused(r, bad, 0x05, 0x20, 0x00);
	packet(r, read, 0, false); /* PIO data with nowhere to go */
	assert_int_equal(rd(r, REG_CMD), ATA_READY | ATA_ERR);
	ask_sense(r, 0x05, 0x24, 0x00);
}

static void device_reset_ends_a_transfer(void **state)
{
	struct rig *r = *state;
	static const u8 cdb[12] = {0xa8, [5] = 5, [9] = 8};

	packet(r, cdb, 0, true);
	dma_start(r, 0, 8 * 2048);
	wr(r, REG_CMD, 0x08);
	assert_int_equal(alt_status(r) & ATA_BSY, ATA_BSY);
	fake_blk_run(r->cd_blk);
	assert_int_equal(rd(r, REG_CMD), 0);
	assert_int_equal(rd(r, REG_MID), 0x14);
	wr(r, REG_DEVICE, 0xa0); /* the disk is as it was */
	assert_int_equal(rd(r, REG_CMD), ATA_READY);
}

#define READY_TEST(fn) cmocka_unit_test_setup_teardown(fn, ready_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(identify_aborts_with_the_packet_signature),
		RIG_TEST(first_command_after_power_on_gets_attention),
		READY_TEST(read_10_by_pio_obeys_the_byte_count),
		READY_TEST(read_12_by_dma_goes_to_memory),
		READY_TEST(small_answers_go_by_dma_too),
		READY_TEST(reading_beyond_the_end_is_refused),
		READY_TEST(failed_read_is_a_medium_error),
		READY_TEST(table_into_nowhere_fails_the_packet),
		READY_TEST(read_cd_gives_user_data_only),
		READY_TEST(no_medium_has_its_sense),
		READY_TEST(tray_opens_unless_locked),
		READY_TEST(toc_has_one_data_track),
		READY_TEST(configuration_names_the_profile),
		READY_TEST(large_images_are_dvds),
		READY_TEST(mode_pages_are_sensed),
		READY_TEST(short_allocation_cuts_the_answer),
		READY_TEST(unknown_packets_and_no_byte_count_are_refused),
		READY_TEST(device_reset_ends_a_transfer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* A channel with drives and host memory for tests, see ata_rig.h. */
#include "tests/lib/ata_rig.h"

static void rig_set_irq(struct ata_channel *ch, bool level)
{
	struct rig *r = container_of(ch, struct rig, ch);

	r->rises += level && !r->irq;
	r->irq = level;
}

/* Two vectors, to see that more than one works. */
static s64 rig_dma_map(struct ata_channel *ch, bool to_memory, u32 max, u32 unit)
{
	struct rig *r = container_of(ch, struct rig, ch);
	u32 n = MIN(max, r->end - r->at), half;

	if (r->fault)
		return -EFAULT;
	n -= n % unit;
	if (!r->started || n == 0)
		return -EAGAIN;
	half = n / 2;
	ch->niov = 0;
	if (half)
		ch->iov[ch->niov++] = (struct iovec){r->memory + r->at, half};
	ch->iov[ch->niov++] = (struct iovec){r->memory + r->at + half, n - half};
	return n;
}

static void rig_dma_moved(struct ata_channel *ch, bool to_memory, u32 bytes)
{
	container_of(ch, struct rig, ch)->at += bytes;
}

static void rig_io_error(struct ata_channel *ch)
{
	container_of(ch, struct rig, ch)->stops++;
}

void rig_init(struct rig *r)
{
	static const struct ata_ops ops = {rig_set_irq, rig_dma_map, rig_dma_moved, rig_io_error};

	memset(r, 0, sizeof(*r));
	mutex_init(&r->lock);
	r->hd_blk = fake_blk_new("hd", HD_SECTORS * ATA_SECTOR);
	r->cd_blk = fake_blk_new("cd", CD_BLOCKS * CD_BLOCK);
	r->hd = (struct ata_drive){.kind = ATA_DISK, .blk = r->hd_blk, .serial = "SER1"};
	r->cd = (struct ata_drive){.kind = ATA_CDROM, .blk = r->cd_blk};
	strcpy(r->hd.model, "COWVM HARDDISK");
	strcpy(r->hd.version, "0.1");
	strcpy(r->cd.model, "COWVM DVD-ROM");
	ata_drive_init(&r->hd);
	ata_drive_init(&r->cd);
	ata_channel_init(&r->ch, &ops, &r->lock, "rig");
	mutex_lock(&r->lock);
	ata_attach(&r->ch, 0, &r->hd);
	ata_attach(&r->ch, 1, &r->cd);
	ata_channel_reset(&r->ch);
	mutex_unlock(&r->lock);
	blk_watch(r->cd_blk, &r->cd.watcher);
}

void rig_fini(struct rig *r)
{
	fake_blk_run(r->hd_blk);
	fake_blk_run(r->cd_blk);
	ata_channel_fini(&r->ch);
	fake_blk_free(r->hd_blk);
	fake_blk_free(r->cd_blk);
	mutex_fini(&r->lock);
}

u8 rd(struct rig *r, unsigned reg)
{
	LOCK_SCOPE(&r->lock);
	return (u8)ata_read(&r->ch, reg, 1);
}

void wr(struct rig *r, unsigned reg, u8 value)
{
	LOCK_SCOPE(&r->lock);
	ata_write(&r->ch, reg, 1, value);
}

u8 alt_status(struct rig *r)
{
	LOCK_SCOPE(&r->lock);
	return ata_alt_status(&r->ch);
}

void control(struct rig *r, u8 value)
{
	LOCK_SCOPE(&r->lock);
	ata_control(&r->ch, value);
}

void dma_start(struct rig *r, u32 at, u32 bytes)
{
	LOCK_SCOPE(&r->lock);
	r->at = at;
	r->end = at + bytes;
	r->started = true;
	ata_dma_started(&r->ch);
}

void dma_stop(struct rig *r)
{
	LOCK_SCOPE(&r->lock);
	r->started = false;
	ata_dma_stopped(&r->ch);
}

/* Data port, 16 bits wide. */
void pio_in(struct rig *r, void *to, u32 bytes)
{
	LOCK_SCOPE(&r->lock);
	for (u32 i = 0; i < bytes; i += 2) {
		u32 v = ata_read(&r->ch, REG_DATA, 2);

		memcpy((u8 *)to + i, &v, MIN(2u, bytes - i));
	}
}

void pio_out(struct rig *r, const void *from, u32 bytes)
{
	LOCK_SCOPE(&r->lock);
	for (u32 i = 0; i < bytes; i += 4) {
		u32 v = 0;

		memcpy(&v, (const u8 *)from + i, MIN(4u, bytes - i));
		ata_write(&r->ch, REG_DATA, 4, v);
	}
}

void command28(struct rig *r, u8 opcode, u32 lba, u8 count)
{
	wr(r, REG_DEVICE, (u8)(0xe0 | (lba >> 24 & 0x0f)));
	wr(r, REG_COUNT, count);
	wr(r, REG_LOW, (u8)lba);
	wr(r, REG_MID, (u8)(lba >> 8));
	wr(r, REG_HIGH, (u8)(lba >> 16));
	wr(r, REG_CMD, opcode);
}

void command48(struct rig *r, u8 opcode, u64 lba, u16 count)
{
	wr(r, REG_DEVICE, 0xe0);
	wr(r, REG_COUNT, (u8)(count >> 8));
	wr(r, REG_COUNT, (u8)count);
	for (unsigned i = 0; i < 3; i++) {
		wr(r, REG_LOW + i, (u8)(lba >> (24 + 8 * i)));
		wr(r, REG_LOW + i, (u8)(lba >> 8 * i));
	}
	wr(r, REG_CMD, opcode);
}

void assert_disk_bytes(const u8 *got, u64 goff, u32 bytes)
{
	for (u32 i = 0; i < bytes; i++)
		assert_int_equal(got[i], fake_blk_byte(goff + i));
}

int rig_setup(void **state)
{
	struct rig *r = xnew(struct rig);

	rig_init(r);
	*state = r;
	return 0;
}

int rig_teardown(void **state)
{
	rig_fini(*state);
	free(*state);
	return 0;
}

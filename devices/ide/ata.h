/* ATA/ATAPI drives on one channel: task file, commands, data.  Internal to ide/.
 *
 * ATA/ATAPI-6 (T13/1410D) and -7; knows neither bus nor PCI.  Two drives share a
 * channel's registers; one command runs on it at a time.  Everything is under the
 * controller's lock, which blk completions (drive's loop thread) take themselves.
 *
 * Life of a command: the table in ata_cmd.c starts it; while the host must move
 * data DRQ is set and `op` says what to do when the DRQ block is through; while we
 * must move data BSY is set and ata_run() takes the next step, at most one blk
 * request at a time.  All of that is plain numbers, so that a channel without a
 * request in flight can be saved and go on elsewhere. */
#ifndef DEVICES_IDE_ATA_H
#define DEVICES_IDE_ATA_H

#include "base/base.h"
#include "base/thread.h"
#include "block/blk.h"
#include "vmm/core/state.h"

#define ATA_SECTOR	512u
#define ATA_BUF_SECTORS 128u
#define ATA_BUF_BYTES	(ATA_BUF_SECTORS * ATA_SECTOR)
#define ATA_IOVECS	256 /* at least a sector even in pieces of two bytes */
#define ATA_MULTIPLE	128 /* sectors per DRQ block at most */
#define CD_BLOCK	2048u

enum ata_kind { ATA_DISK, ATA_CDROM };

struct ata_drive {
	enum ata_kind kind;			/* [const] */
	struct blk *blk;			/* [const] */
	char serial[21], version[9], model[41]; /* [const] */
	u32 physical_bytes;			/* [const] of a block; 0: a sector */
	u16 cylinders;				/* [const] default translation */
	u8 heads, spt;				/* [const] */
	struct ata_channel *channel;		/* [const] once attached */
	struct blk_watcher watcher;

	/* [lock] all below is saved */
	u8 status, error;
	u8 reg[8], hob[8]; /* as the host wrote them; hob: the byte before */
	bool intrq;
	u16 cur_cylinders;
	u8 cur_heads, cur_spt; /* translation in force */
	u8 multiple;	       /* sectors, 0: off */
	u8 transfer_mode;      /* as SET FEATURES 03h gave it */
	bool write_cache, look_ahead, smart;
	u8 power;
	/* packet devices */
	u8 sense_key, asc, ascq;
	u8 attention; /* ASC of a pending unit attention, 0: none */
	u8 media_event;
	bool tray_open, locked;
};

struct ata_channel;
struct ata_ops {
	/* INTRQ changed. */
	void (*set_irq)(struct ata_channel *ch, bool level);
	/* Host memory for the next up to max bytes of the bus master's table, a
	 * multiple of unit: bytes mapped in ch->iov[0 .. ch->niov); -EAGAIN: not
	 * started, or less than a unit is left of the table; -EFAULT. */
	s64 (*dma_map)(struct ata_channel *ch, bool to_memory, u32 max, u32 unit);
	/* The memory mapped last was used (and written, if to_memory); go on after
	 * that many of its bytes, 0: from the same place again. */
	void (*dma_moved)(struct ata_channel *ch, bool to_memory, u32 bytes);
	/* A request failed and is kept: the machine is to stop. */
	void (*io_error)(struct ata_channel *ch);
};

struct ata_channel {
	const struct ata_ops *ops;   /* [const] */
	struct mutex *lock;	     /* [const] the controller's */
	struct ata_drive *drives[2]; /* [const] after assembly; NULL: absent */
	const char *id;		     /* [const] for messages */

	/* [lock] saved */
	u8 control, selected, active, op;
	u8 addressing;
	bool fua, irq_level;
	u8 reset_mask; /* drives whose reset ATA_OP_RESET ends */
	u64 lba;       /* next sector of 512 bytes */
	u32 left;      /* sectors not yet moved */
	u32 block;     /* bytes of a DRQ block */
	u32 buf_at, drq_end, buf_end;
	u8 buf[ATA_BUF_BYTES];

	/* [lock] not saved: idle while state is saved */
	bool in_flight, dropped;
	bool kept;	/* the step failed and is taken again when the machine goes on */
	bool unchecked; /* loaded, not yet known to fit the drives */
	u8 paused;	/* how often: by the controller and by each drive */
	u32 io_sectors;
	struct blk_req req;
	struct iovec iov[ATA_IOVECS];
	unsigned niov;
	struct cond idle; /* in_flight became false */
};

/* id is kept.  The lock is not held for _init, _fini, _pause and _resume. */
void ata_channel_init(struct ata_channel *ch, const struct ata_ops *ops, struct mutex *lock,
		      const char *id);
void ata_channel_fini(struct ata_channel *ch); /* waits for the request in flight */
/* Pause: no request is in flight afterwards and none starts until resume. */
void ata_channel_pause(struct ata_channel *ch);
void ata_channel_resume(struct ata_channel *ch);

/* All below: lock held. */
void ata_attach(struct ata_channel *ch, unsigned unit, struct ata_drive *d);
void ata_detach(struct ata_drive *d);		/* waits */
void ata_channel_reset(struct ata_channel *ch); /* power-on state */
u32 ata_read(struct ata_channel *ch, unsigned reg, unsigned size);
void ata_write(struct ata_channel *ch, unsigned reg, unsigned size, u32 value);
u8 ata_alt_status(const struct ata_channel *ch);
void ata_control(struct ata_channel *ch, u8 value);
void ata_dma_started(struct ata_channel *ch);
void ata_dma_stopped(struct ata_channel *ch);

/* blk and the strings are set by the owner; this fills in what follows from them. */
void ata_drive_init(struct ata_drive *d);
void ata_drive_reset(struct ata_drive *d); /* power-on state */

extern const struct state_field ata_drive_state[], ata_channel_state[];
int ata_drive_check(const struct ata_drive *loaded, struct error *err);
int ata_channel_check(const struct ata_channel *loaded, struct error *err);
void ata_channel_post_load(struct ata_channel *ch);
void ata_drive_post_load(struct ata_drive *d);
#endif

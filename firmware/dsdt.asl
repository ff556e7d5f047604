/* What Linux and others are told of the machine that they cannot find by looking:
 * PCI windows and interrupt routing, ISA devices, the power-off state.
 *
 * ACPI 6.x; compiled to AML at build time.  Names whose values depend on the machine
 * are filled in by firmware/acpi.c, which finds them by name.  Ports and interrupts
 * are those of the device classes' defaults.  SeaBIOS reads this, too, to see which
 * devices there are, but gives up at what it does not know: outside methods there
 * are only scopes, devices, names and fields.
 */
DefinitionBlock ("dsdt.aml", "DSDT", 2, "COWVM ", "COWVM-PC", 1)
{
	Scope (\_SB)
	{
		Device (PCI0)
		{
			Name (_HID, EisaId ("PNP0A03"))
			Name (_UID, 0)
			Name (_BBN, 0)

			/* Filled in: where the PCI windows start, in MiB. */
			Name (P32S, 0x12345678)
			Name (P64S, 0x12345678)

			Name (WIND, ResourceTemplate ()
			{
				WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,
					0, 0, 0xff, 0, 0x100)
				IO (Decode16, 0xcf8, 0xcf8, 1, 8)
				WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode,
					EntireRange, 0, 0, 0xcf7, 0, 0xcf8)
				WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode,
					EntireRange, 0, 0xd00, 0xffff, 0, 0xf300)
				DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed,
					Cacheable, ReadWrite, 0, 0xa0000, 0xbffff, 0, 0x20000)
				DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed,
					NonCacheable, ReadWrite, 0, 0xe0000000, 0xfebfffff, 0,
					0x1ec00000, , , W32)
				QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed,
					Cacheable, ReadWrite, 0, 0x100000000, 0x4ffffffff, 0,
					0x400000000, , , W64)
			})
			Method (_CRS, 0, Serialized)
			{
				CreateDWordField (WIND, \_SB.PCI0.W32._MIN, MIN3)
				CreateDWordField (WIND, \_SB.PCI0.W32._MAX, MAX3)
				CreateDWordField (WIND, \_SB.PCI0.W32._LEN, LEN3)
				CreateQWordField (WIND, \_SB.PCI0.W64._MIN, MIN6)
				CreateQWordField (WIND, \_SB.PCI0.W64._MAX, MAX6)
				CreateQWordField (WIND, \_SB.PCI0.W64._LEN, LEN6)

				MIN3 = P32S << 20
				LEN3 = MAX3 - MIN3 + 1
				MIN6 = P64S << 20
				MAX6 = MIN6 + LEN6 - 1
				Return (WIND)
			}

			/* One entry of the routing table: any function of a slot, pin 0-3. */
			Method (ROUT, 2, Serialized)
			{
				Local0 = Package (4) { 0, 0, LNKA, 0 }
				Local1 = (Arg0 + Arg1 + 3) & 3
				If (Arg0 == 1 && Arg1 == 0)
				{
					/* The power management function is wired to the SCI. */
					Local0 = Package (4) { 0, 0, LNKS, 0 }
				}
				ElseIf (Local1 == 1)
				{
					Local0 = Package (4) { 0, 0, LNKB, 0 }
				}
				ElseIf (Local1 == 2)
				{
					Local0 = Package (4) { 0, 0, LNKC, 0 }
				}
				ElseIf (Local1 == 3)
				{
					Local0 = Package (4) { 0, 0, LNKD, 0 }
				}
				Local0[0] = (Arg0 << 16) | 0xffff
				Local0[1] = Arg1
				Return (Local0)
			}

			Method (_PRT, 0, Serialized)
			{
				Local0 = Package (128) {}
				Local1 = 0
				While (Local1 < 128)
				{
					Local0[Local1] = ROUT (Local1 >> 2, Local1 & 3)
					Local1++
				}
				Return (Local0)
			}
		}

		/* Ports that belong to the board: power management, SMBus, APM, reset. */
		Device (BRD)
		{
			Name (_HID, EisaId ("PNP0C02"))
			Name (_UID, 1)
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, 0x600, 0x600, 1, 0x40)
				IO (Decode16, 0x700, 0x700, 1, 0x10)
				IO (Decode16, 0xb2, 0xb2, 1, 2)
				IO (Decode16, 0x92, 0x92, 1, 1)
			})
		}
	}

	Scope (\_SB.PCI0)
	{
		Device (ISA)
		{
			Name (_ADR, 0x00010000)
			/* Filled in: 1 if there is such a serial port. */
			Name (CM1P, 0x12345678)
			Name (CM2P, 0x12345678)
			OperationRegion (PIRQ, PCI_Config, 0x60, 4)
			Field (PIRQ, ByteAcc, NoLock, Preserve)
			{
				PRQA, 8, PRQB, 8, PRQC, 8, PRQD, 8
			}

			Device (RTC)
			{
				Name (_HID, EisaId ("PNP0B00"))
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, 0x70, 0x70, 1, 2)
					IRQNoFlags () { 8 }
				})
			}

			Device (KBD)
			{
				Name (_HID, EisaId ("PNP0303"))
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, 0x60, 0x60, 1, 1)
					IO (Decode16, 0x64, 0x64, 1, 1)
					IRQNoFlags () { 1 }
				})
			}

			Device (MOU)
			{
				Name (_HID, EisaId ("PNP0F13"))
				Name (_CRS, ResourceTemplate ()
				{
					IRQNoFlags () { 12 }
				})
			}

			Device (COM1)
			{
				Name (_HID, EisaId ("PNP0501"))
				Name (_UID, 1)
				Method (_STA) { Return (CM1P * 0xf) }
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, 0x3f8, 0x3f8, 0, 8)
					IRQNoFlags () { 4 }
				})
			}

			Device (COM2)
			{
				Name (_HID, EisaId ("PNP0501"))
				Name (_UID, 2)
				Method (_STA) { Return (CM2P * 0xf) }
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, 0x2f8, 0x2f8, 0, 8)
					IRQNoFlags () { 3 }
				})
			}

			Device (FWCF)
			{
				Name (_HID, "QEMU0002")
				Name (_STA, 0xb)	/* present and working, not shown */
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, 0x510, 0x510, 1, 0xc)
				})
			}
		}
	}

	/* PIRQ links: bit 7 of the bridge's register disconnects, bits 0-3 are the IRQ.
	 * It is the same line with the IOAPIC, where input n is IRQ n. */
	Scope (\_SB)
	{
		Name (LPRS, ResourceTemplate ()
		{
			Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 5, 10, 11 }
		})
		Name (LCUR, ResourceTemplate ()
		{
			Interrupt (ResourceConsumer, Level, ActiveHigh, Shared, , , LIRQ) { 0 }
		})

		Method (LCRS, 1, Serialized)	/* register -> resources */
		{
			CreateDWordField (LCUR, \_SB.LIRQ._INT, LINT)
			LINT = Arg0 & 0xf
			If (Arg0 & 0x80)
			{
				LINT = 0
			}
			Return (LCUR)
		}
		Method (LSTA, 1)
		{
			If (Arg0 & 0x80)
			{
				Return (0x9)
			}
			Return (0xb)
		}
		Method (LNUM, 1)		/* resources -> register */
		{
			CreateDWordField (Arg0, 5, WANT)
			Return (WANT & 0xf)
		}

		Device (LNKA)
		{
			Name (_HID, EisaId ("PNP0C0F"))
			Name (_UID, 1)
			Method (_PRS) { Return (LPRS) }
			Method (_STA) { Return (LSTA (\_SB.PCI0.ISA.PRQA)) }
			Method (_CRS) { Return (LCRS (\_SB.PCI0.ISA.PRQA)) }
			Method (_DIS) { \_SB.PCI0.ISA.PRQA |= 0x80 }
			Method (_SRS, 1) { \_SB.PCI0.ISA.PRQA = LNUM (Arg0) }
		}
		Device (LNKB)
		{
			Name (_HID, EisaId ("PNP0C0F"))
			Name (_UID, 2)
			Method (_PRS) { Return (LPRS) }
			Method (_STA) { Return (LSTA (\_SB.PCI0.ISA.PRQB)) }
			Method (_CRS) { Return (LCRS (\_SB.PCI0.ISA.PRQB)) }
			Method (_DIS) { \_SB.PCI0.ISA.PRQB |= 0x80 }
			Method (_SRS, 1) { \_SB.PCI0.ISA.PRQB = LNUM (Arg0) }
		}
		Device (LNKC)
		{
			Name (_HID, EisaId ("PNP0C0F"))
			Name (_UID, 3)
			Method (_PRS) { Return (LPRS) }
			Method (_STA) { Return (LSTA (\_SB.PCI0.ISA.PRQC)) }
			Method (_CRS) { Return (LCRS (\_SB.PCI0.ISA.PRQC)) }
			Method (_DIS) { \_SB.PCI0.ISA.PRQC |= 0x80 }
			Method (_SRS, 1) { \_SB.PCI0.ISA.PRQC = LNUM (Arg0) }
		}
		Device (LNKD)
		{
			Name (_HID, EisaId ("PNP0C0F"))
			Name (_UID, 4)
			Method (_PRS) { Return (LPRS) }
			Method (_STA) { Return (LSTA (\_SB.PCI0.ISA.PRQD)) }
			Method (_CRS) { Return (LCRS (\_SB.PCI0.ISA.PRQD)) }
			Method (_DIS) { \_SB.PCI0.ISA.PRQD |= 0x80 }
			Method (_SRS, 1) { \_SB.PCI0.ISA.PRQD = LNUM (Arg0) }
		}
		Device (LNKS)			/* the SCI: fixed */
		{
			Name (_HID, EisaId ("PNP0C0F"))
			Name (_UID, 5)
			Name (_PRS, ResourceTemplate ()
			{
				Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 9 }
			})
			Method (_STA) { Return (0xb) }
			Method (_CRS) { Return (_PRS) }
			Method (_DIS) { }
			Method (_SRS, 1) { }
		}
	}

	/* Soft off: sleep type 0 of the PIIX4.  There is no other sleep state. */
	Name (\_S5, Package (4) { 0, 0, 0, 0 })
}

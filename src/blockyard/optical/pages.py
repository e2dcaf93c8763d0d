"""Mode and VPD pages of optical drives (MMC-6; pages 0Dh, 0Eh and 2Ah as MMC-3 and SFF-8090 have them)."""

from __future__ import annotations

from blockyard.scsi import mode, vpd
from blockyard.scsi.mode import ModeField, ModePage

ERROR_RECOVERY, WRITE_PARAMETERS, POWER_CONDITION, TIMEOUT, CAPABILITIES = 0x01, 0x05, 0x1A, 0x1D, 0x2A


VPD_PAGES = vpd.pages()

MODE_PAGES = {
    (page.code, page.subpage): page
    for page in (
        mode.PAGES[0x02, 0],
        mode.PAGES[0x0A, 0].fixed(swp=0, dpicz=0, ato=0),  # these are for devices that write
        mode.PAGES[0x0A, 0x01],
        ModePage(
            ERROR_RECOVERY,
            "Read/Write Error Recovery",
            12,
            (
                ModeField("awre", 2, 7, 1),
                ModeField("arre", 2, 6, 1),
                ModeField("tb", 2, 5, 1),
                ModeField("rc", 2, 4, 1),
                ModeField("per", 2, 2, 1, changeable=True),  # there are no recovered errors to tell of
                ModeField("dte", 2, 1, 1),
                ModeField("dcr", 2, 0, 1, changeable=True),
                ModeField("read_retry_count", 3, 7, 8, default=1, changeable=True),
            ),
            "MMC-6",
        ),
        ModePage(
            WRITE_PARAMETERS,
            "Write Parameters",
            52,
            (
                ModeField("bufe", 2, 6, 1, default=1, changeable=True),  # the data never runs out
                ModeField("ls_v", 2, 5, 1, changeable=True),
                ModeField("test_write", 2, 4, 1, changeable=True),
                ModeField("write_type", 2, 3, 4, default=1, changeable=True, values=(0, 1, 2)),  # packet, TAO, SAO
                ModeField("multi_session", 3, 7, 2, changeable=True),
                ModeField("fp", 3, 5, 1, changeable=True),
                ModeField("copy", 3, 4, 1, changeable=True),
                ModeField("track_mode", 3, 3, 4, default=4, changeable=True),  # CONTROL: data
                ModeField("data_block_type", 4, 3, 4, default=8, changeable=True),
                ModeField("link_size", 5, 7, 8, changeable=True),
                ModeField("host_application_code", 7, 5, 6, changeable=True),
                ModeField("session_format", 8, 7, 8, changeable=True),
                ModeField("packet_size", 10, 7, 32, changeable=True),
                ModeField("audio_pause_length", 14, 7, 16, default=150, changeable=True),
                ModeField("media_catalog_number", 16, 7, 128, changeable=True),
                ModeField("isrc", 32, 7, 128, changeable=True),
                ModeField("sub_header", 48, 7, 32, changeable=True),
            ),
            "MMC-6",
        ),
        ModePage(
            0x0D,
            "CD Device Parameters",
            8,
            (
                ModeField("inactivity_timer", 3, 3, 4, default=0x0D, changeable=True),  # it goes on turning
                ModeField("s_units_per_m_unit", 4, 7, 16, default=60),
                ModeField("f_units_per_s_unit", 6, 7, 16, default=75),
            ),
            "MMC-3",
        ),
        ModePage(
            0x0E,
            "CD Audio Control",
            16,
            (
                ModeField("immed", 2, 2, 1, default=1),
                ModeField("sotc", 2, 1, 1),
                ModeField("port_0_channel", 8, 3, 4, default=1, changeable=True),
                ModeField("port_0_volume", 9, 7, 8, default=0xFF, changeable=True),
                ModeField("port_1_channel", 10, 3, 4, default=2, changeable=True),
                ModeField("port_1_volume", 11, 7, 8, default=0xFF, changeable=True),
            ),
            "MMC-3",
        ),
        ModePage(  # no timer brings about a power condition
            POWER_CONDITION,
            "Power Condition",
            12,
            (ModeField("idle", 3, 1, 1), ModeField("standby", 3, 0, 1)),
            "MMC-6",
        ),
        ModePage(
            TIMEOUT,
            "Timeout and Protect",
            12,
            (
                ModeField("g3enable", 4, 3, 1),
                ModeField("tmoe", 4, 2, 1),
                ModeField("disp", 4, 1, 1),
                ModeField("swpp", 4, 0, 1),
                ModeField("group_1_minimum_timeout", 6, 7, 16, default=10),  # seconds
                ModeField("group_2_minimum_timeout", 8, 7, 16, default=60),
            ),
            "MMC-6",
        ),
        ModePage(
            CAPABILITIES,
            "MM Capabilities and Mechanical Status",
            36,
            (
                ModeField("dvd_ram_read", 2, 5, 1, default=1),
                ModeField("dvd_r_read", 2, 4, 1, default=1),
                ModeField("dvd_rom_read", 2, 3, 1, default=1),
                ModeField("method_2", 2, 2, 1, default=1),
                ModeField("cd_rw_read", 2, 1, 1, default=1),
                ModeField("cd_r_read", 2, 0, 1, default=1),
                ModeField("dvd_ram_write", 3, 5, 1, default=1),
                ModeField("dvd_r_write", 3, 4, 1, default=1),
                ModeField("test_write", 3, 2, 1, default=1),
                ModeField("cd_rw_write", 3, 1, 1, default=1),
                ModeField("cd_r_write", 3, 0, 1, default=1),
                ModeField("buf", 4, 7, 1, default=1),
                ModeField("multi_session", 4, 6, 1, default=1),
                ModeField("mode_2_form_2", 4, 5, 1, default=1),
                ModeField("mode_2_form_1", 4, 4, 1, default=1),
                ModeField("upc", 5, 6, 1, default=1),
                ModeField("isrc", 5, 5, 1, default=1),
                ModeField("r_w_supported", 5, 2, 1, default=1),
                ModeField("cd_da_accurate", 5, 1, 1, default=1),
                ModeField("cd_da", 5, 0, 1, default=1),
                ModeField("loading_mechanism", 6, 7, 3, default=1),  # a tray
                ModeField("eject", 6, 3, 1, default=1),
                ModeField("lock_state", 6, 1, 1),
                ModeField("lock", 6, 0, 1, default=1),
                ModeField("maximum_read_speed", 8, 7, 16),
                ModeField("buffer_size", 12, 7, 16, default=2048),  # kilobytes
                ModeField("current_read_speed", 14, 7, 16),
                ModeField("maximum_write_speed", 18, 7, 16),
                ModeField("current_write_speed", 20, 7, 16),
                ModeField("current_write_speed_selected", 28, 7, 16),
                ModeField("write_speeds", 30, 7, 16, default=1),
                ModeField("write_speed", 34, 7, 16),
            ),
            "MMC-3",
        ),
    )
}

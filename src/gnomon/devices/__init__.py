"""Hardware: the record of a device, the catalogue of data sheets, the facts of this host. No torch in here."""

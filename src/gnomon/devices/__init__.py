"""Hardware: the record of a device, the catalogue of data sheets, the facts of this host. No torch in here."""

from gnomon.core.rooms import make_callable

make_callable(__name__, "gnomon.devices.catalogue:every")

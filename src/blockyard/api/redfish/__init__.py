"""Redfish (DMTF DSP0266) with Swordfish (SNIA): the standard's view of the server, under /redfish of the API's own door.

The same accounts, roles, limits and audit; the forms, errors and logins are those of the standard.
"""

"""Each module wraps one client library, translates its errors and decides nothing."""

"""Tests. They mirror the source; records shared by many are built in conftest.py."""

"""A main backend in small: invoices of many businesses, paid through Conva Payments."""

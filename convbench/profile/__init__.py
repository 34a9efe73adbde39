"""Take a cell apart by experiments: why is it slower, and what would help? (An add-on.)"""

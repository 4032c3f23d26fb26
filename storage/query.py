"""stub"""
def run(place, text, parameters): raise NotImplementedError
def write_catalog(place): raise NotImplementedError

def test_1(f):
    assert abs(f(32) - 0.0) < 1e-9


def test_2(f):
    assert abs(f(212) - 100.0) < 1e-9


def test_3(f):
    assert abs(f(-40) - -40.0) < 1e-9


def test_4(f):
    assert abs(f(50) - 10.0) < 1e-9


def test_5(f):
    assert abs(f(14) - -10.0) < 1e-9

def test_1(f):
    assert f(7) == '07'


def test_2(f):
    assert f(0) == '00'


def test_3(f):
    assert f(12) == '12'


def test_4(f):
    assert f(99) == '99'

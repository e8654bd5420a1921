def test_1(f):
    assert f('abc') == '***'


def test_2(f):
    assert f('') == ''


def test_3(f):
    assert f('x') == '*'


def test_4(f):
    assert f('secret') == '******'

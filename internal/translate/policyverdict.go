package translate

func (p *pass) policyVerdict() { p.gone = true }
func (p *pass) httpRoute()     { p.gone = true }

"""Authentication and authorization: tokens, revocation, the actor, the policy, rate limits.

Promises: `policy` is pure and the same for REST and Socket.IO; a refusal says its code. Never: trusting a claim
that was not verified; a rule checked here alone that a concurrent change could break (the statement checks it
again).
"""

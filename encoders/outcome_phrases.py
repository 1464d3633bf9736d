"""What demands about overall behaviour may sound like: the phrases that ``overall`` compares with.

Written by hand. A demand is told by the few of them that it comes closest to, so each way of
speaking needs some. What is known of the demands they are tried on: ``tests/demands/README.md``.
"""

from __future__ import annotations

PHRASES: dict[str, tuple[str, ...]] = {
    "coupon": (
        "will redeem a coupon", "people who use vouchers and discounts",
        "people who answer to offers", "will hand in money-off vouchers",
        "deal seekers who respond to promotions", "price-conscious bargain hunters",
        "will take up a discount offer from a campaign", "coupon lovers",
        "people who will use a voucher in the coming two months",
        "deal hunters likely to cash in an offer", "respond to a discount coupon",
        "households that clip coupons",
        "shoppers who will take advantage of a promotion code",
        "customers who react to mailed offers", "households responsive to coupon campaigns",
        "shoppers who bring coupons to the checkout", "will use one of our coupons",
    ),
    "nothing": (
        "will not shop at all", "customers who stop coming", "people who stay away from the shop",
        "at risk of churning", "customers about to leave us", "lapsed and inactive customers",
        "will not visit for a while", "dormant accounts that have gone quiet",
        "people we are losing to a competitor", "will be absent and skip their shopping",
        "shoppers we are about to lose", "customers likely to go quiet for the next fortnight",
        "households unlikely to come back soon", "people who won't show up in our stores",
        "likely churners", "customers slipping away from us", "will not buy anything soon",
        "families whose visits are drying up", "who is going to stop buying from us",
        "high churn risk", "about to defect", "no visits expected", "attrition risk",
        "will make no purchase in the next 14 days", "zero spend in the coming two weeks",
    ),
    "a lot": (
        "will spend a lot of money", "customers with a high total spending", "our best customers",
        "people who come to the shop often", "big spenders", "our most valuable customers",
        "high-value shoppers who bring the most revenue", "heavy shoppers with large baskets",
        "the top quarter by spending", "VIP customers", "top spenders of the coming month",
        "households with big grocery bills ahead", "will fill their trolleys to the brim",
        "the largest total bill next month", "high rollers", "leave the most money at the till",
        "our most profitable shoppers", "expected to be in the top 25% by spend",
        "high spend next month", "who will spend the most", "largest baskets next month",
        "premium customers", "big-ticket households", "expected revenue is highest",
        "will buy a huge amount of groceries",
    ),
    "more": (
        "will spend clearly more than before", "customers whose shopping is increasing",
        "customers whose spending is growing", "will spend more than usual",
        "on the way up, with rising bills",
        "will step up their purchases compared with last month", "baskets that are getting bigger",
        "upward trend in spending", "about to increase their spending",
        "bills will rise compared with last month", "households ramping up their purchases",
        "will spend a good deal more than they did recently", "growing accounts",
        "a spend uplift next month", "returning with larger shops than in the previous weeks",
        "shoppers who are accelerating", "spend growth", "will increase spend by a third",
        "spending more than last month", "heavier spending than in the past four weeks",
        "customers trading up", "expected to buy more than usual", "on a rising trajectory",
        "whose spend is going up", "customers who will raise their spend with us",
        "spending is about to take off", "will put more into the basket than lately",
        "a growing share of wallet",
    ),
}  # fmt: skip
"""Outcome → phrases; the model need not have learnt all outcomes."""
